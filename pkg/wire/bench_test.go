package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

// content is what a frame of so many characters says, made of repeated parts.
func content(part string, characters int) string {
	return strings.Repeat(part, characters/utf8.RuneCountInString(part))
}

// group is a GROUP_MESSAGE to so many members.
func group(members int, content string) string {
	to := make([]string, members)
	for i := range to {
		to[i] = fmt.Sprintf(`"ANZ-%d"`, 100000+i)
	}
	return `{"type":"GROUP_MESSAGE","data":{"to":[` + strings.Join(to, ",") + `],"content":"` + content + `"}}`
}

func BenchmarkDecode(b *testing.B) {
	message := func(content string) string {
		return `{"type":"MESSAGE","data":{"to":"ANZ-123224","content":"` + content + `"},"reference":"abc123"}`
	}
	for _, test := range []struct{ name, in string }{
		{"ascii", message(content("some words to send. ", 1000))},
		{"fast", strings.Replace(message(content("some words to send. ", 1000)), `"reference"`, `"feature":"FAST","reference"`, 1)},
		{"escapes", message(content(`say \"hello\"\n`, 1000))},
		{"cyrillic", message(content("несколько слов ", 1000))},
		{"short", message("hello")},
		{"group of 1000", group(1000, content("some words to send. ", 1000))},
		{"login", `{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"ANZ-123223","token":"token-12345","features":["accept","push"]}}`},
		{"ack", `{"type":"MESSAGE_ACK","data":{"upTo":123456}}`},
	} {
		b.Run(test.name, func(b *testing.B) {
			in := []byte(test.in)
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if _, problem := wire.Decode(in); problem != nil {
					b.Fatal(problem.Message)
				}
			}
		})
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	text := []byte(`"` + content("some words to send. ", 1000) + `"`)
	stamp := wire.Stamp{ID: ident.MessageID{1, 2, 3}, CreatedAt: 1700000000123}
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = wire.AppendMessage(buf[:0], "ANZ-123223", text, "abc123", stamp)
	}
}
