package load

// What is read from the network and from contents, for tests.

// ReadContent reads a content and says which message it is, for whom, and whether it has
// been changed.
func ReadContent(content string) (from string, n int64, bound string, damaged bool, err error) {
	p, err := parseContent(content)
	return p.from, p.n, p.bound, p.damaged, err
}

// WriteContent writes a content.
func WriteContent(l *Load, from string, n int64, bound string, size int) string {
	text, _ := l.content(message{from, n}, bound, size)
	return text
}

// ReadReference reads a reference.
func ReadReference(text string) (n int64, isAgain, ok bool) { return parseReference(text) }

// WriteReference writes a reference.
func WriteReference(n int64, isAgain bool) string { return reference(n, isAgain) }

// FrameOf is the frame of a message with such a content.
func FrameOf(content string) []byte {
	d := &draft{message: message{"ANZ-1", 1}, to: []string{"ANZ-2"}, named: true}
	return d.encode(content, true, "")
}
