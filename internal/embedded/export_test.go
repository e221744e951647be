package embedded

// Redact is what the server's log lines go through.
func Redact(text string) string { return redact(text) }
