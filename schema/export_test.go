package schema

// CutForTest is cut.
func CutForTest(s string, n int) string { return cut(s, n) }
