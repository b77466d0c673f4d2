package envelope_test

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

func samples() []envelope.Envelope {
	to := []envelope.Recipient{{User: "ANZ-1", N: 1}, {User: "ANZ-2", N: 1 << 60}}
	return []envelope.Envelope{
		{Kind: envelope.KindMessage, Confirm: true, Remember: true, ID: ident.MessageID{1, 2}, Stream: 1 << 63, From: "ANZ-9", To: to, CreatedAt: -5, Reference: "a\x00é", Frame: []byte(`{"type":"MESSAGE"}`)},
		{Kind: envelope.KindLogin, To: to[:1], Session: 7, Connector: ident.Connector{Name: "c-1", Incarnation: ident.Incarnation{9}}, Features: envelope.FeaturePush | envelope.FeatureHints, Frame: []byte{}},
		{Kind: envelope.KindFetch, To: to[:1], Session: 7, Request: 3, Count: 2000, Frame: []byte{}},
		{Kind: envelope.KindEpoch, Frame: []byte{}},
		{
			Kind: envelope.KindMessage, From: "ANZ-9", Stream: 5, Path: []string{"domain-01", "domain-02"}, Home: "domain-03", Network: 1 << 40, Late: true, Released: true, Moved: true,
			To: []envelope.Recipient{{User: "ANZ-1", N: 1, After: envelope.Mark{Stream: 1 << 62, N: 9}}, {User: "ANZ-2", N: 2}}, Frame: []byte("{}"),
		},
		{Kind: envelope.KindWindows, From: "ANZ-1", To: to[:1], Path: []string{"a"}, Moved: true, Frame: []byte{1}},
	}
}

func TestDecodeIsTheInverseOfAppend(t *testing.T) {
	t.Parallel()
	for _, want := range append(samples(), group(1000)) {
		b := want.Encode()
		if !bytes.Equal(b, want.Append(nil)) {
			t.Errorf("%s: Encode and Append differ", want.Kind)
		}
		got, err := envelope.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", want.Kind, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", want.Kind, got, want)
		}
		whole, err := envelope.DecodeNew(b)
		if err != nil || !reflect.DeepEqual(*whole, want) {
			t.Errorf("%s, in one piece: %v\n got %+v\nwant %+v", want.Kind, err, whole, want)
		}
	}
}

// group is a message for many.
func group(members int) envelope.Envelope {
	e := envelope.Envelope{
		Kind: envelope.KindMessage, From: "ANZ-9", Stream: 5, Reference: strings.Repeat("reference ", 30), Path: []string{"domain-01"}, Frame: bytes.Repeat([]byte("{}"), 500),
	}
	for i := range members {
		e.To = append(e.To, envelope.Recipient{User: ident.UserID(fmt.Sprintf("ANZ-%d", i*i)), N: uint64(i) + 1})
	}
	return e
}

func TestDecodeRefusesEveryPrefixAndAnythingBehind(t *testing.T) {
	t.Parallel()
	for _, e := range samples() {
		b := e.Append(nil)
		for n := range b {
			if _, err := envelope.Decode(b[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes were accepted", e.Kind, n, len(b))
			}
		}
		if _, err := envelope.Decode(append(b, 0)); err == nil {
			t.Errorf("%s: a byte behind the end was accepted", e.Kind)
		}
	}
}

func TestPositionsOrderByGenerationThenOffset(t *testing.T) {
	t.Parallel()
	inOrder := []envelope.Position{{Offset: -1}, {}, {Offset: 7}, {Generation: 1, Offset: 9}, {Generation: 2}, {Generation: 2, Offset: 1}}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if a.Before(b) != (i < j) || a.Compare(b) != cmp.Compare(i, j) {
				t.Errorf("%v and %v are not ordered", a, b)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range samples() {
		f.Add(e.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := envelope.Decode(b)
		if err != nil {
			return
		}
		again, err := envelope.Decode(e.Append(nil))
		if err != nil {
			t.Fatalf("an accepted envelope does not survive: %v", err)
		}
		if !bytes.Equal(again.Append(nil), e.Append(nil)) {
			t.Fatal("an accepted envelope changes when it is encoded again")
		}
	})
}
