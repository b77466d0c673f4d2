package delivery_test

import (
	"fmt"
	"testing"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// fullBatch holds as many items as one message of the live plane does.
func fullBatch(targets int) delivery.Batch {
	b := delivery.Batch{Lane: 3, Epoch: epoch}
	frame := make([]byte, 1100)
	for i := range 25 {
		it := delivery.Item{Kind: delivery.KindFrame, ID: ident.MessageID{byte(i)}, Pos: envelope.Position{Generation: 1, Offset: int64(i)}, Frame: frame}
		for j := range targets {
			it.Targets = append(it.Targets, delivery.Target{Session: uint64(i), User: ident.UserID(fmt.Sprintf("ANZ-%d", 1_000_000+i+j)), D: uint64(j)})
		}
		b.Items = append(b.Items, it)
	}
	return b
}

// BenchmarkBatch counts items.
func BenchmarkBatch(b *testing.B) {
	for _, targets := range []int{1, 100} {
		batch := fullBatch(targets)
		data := batch.Append(nil)
		b.Run(fmt.Sprintf("encode/targets=%d", targets), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for n := 0; n < b.N; n += len(batch.Items) {
				buf = batch.Append(buf[:0])
			}
		})
		b.Run(fmt.Sprintf("decode/targets=%d", targets), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(batch.Items) {
				if _, err := delivery.DecodeBatch(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAnswers counts sessions.
func BenchmarkAnswers(b *testing.B) {
	a := delivery.Answers{Lane: 3, Epoch: epoch, Connector: ident.Connector{Name: "connector-1"}}
	for i := range 25 {
		a.Progress = append(a.Progress, delivery.Progress{Session: uint64(i) << 40, Taken: 1000, Proved: 999})
	}
	b.ReportAllocs()
	var buf []byte
	for n := 0; n < b.N; n += len(a.Progress) {
		buf = a.Append(buf[:0])
		if _, err := delivery.DecodeAnswers(buf); err != nil {
			b.Fatal(err)
		}
	}
}
