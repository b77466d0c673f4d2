package envelope_test

import (
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

func BenchmarkEnvelope(b *testing.B) {
	e := envelope.Envelope{
		Kind: envelope.KindMessage, ID: ident.MessageID{1}, Stream: 1 << 60, From: "ANZ-1000001", To: []envelope.Recipient{{User: "ANZ-1000002", N: 300}},
		CreatedAt: 1_700_000_000_000, Network: 1_700_000_000, Reference: "reference-1", Frame: make([]byte, 1100),
	}
	data := e.Append(nil)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = e.Append(buf[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := envelope.DecodeNew(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
