package schema

// CutForTest is cut.
func CutForTest(s string, n int) string { return cut(s, n) }

// CanonicalForTest is the canonical form by the fast way and by the general one.
func CanonicalForTest(text []byte) (fast, general []byte, okFast, okGeneral bool) {
	fast, okFast = appendCanonical(nil, text, flatLevels)
	general, okGeneral = appendAnyCanonical(nil, text)
	return fast, general, okFast, okGeneral
}
