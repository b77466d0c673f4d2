package envelope_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
)

func windowSamples() []envelope.Windows {
	return []envelope.Windows{
		{},
		{Last: true},
		{Last: true, Streams: []envelope.StreamWindow{{Stream: 1 << 63, High: 9, Missing: []uint64{1, 2, 8}}, {Stream: 2, High: 1 << 60}}},
		{Streams: []envelope.StreamWindow{{Stream: 5, High: 3, Missing: []uint64{3}}}}, // the highest was given up
	}
}

func TestDecodeWindowsIsTheInverseOfAppend(t *testing.T) {
	t.Parallel()
	for _, want := range windowSamples() {
		got, err := envelope.DecodeWindows(want.Append(nil))
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestDecodeWindowsRefusesEveryPrefixAndAnythingBehind(t *testing.T) {
	t.Parallel()
	for _, w := range windowSamples() {
		b := w.Append(nil)
		for n := range b {
			if _, err := envelope.DecodeWindows(b[:n]); err == nil {
				t.Errorf("the first %d of %d bytes were accepted", n, len(b))
			}
		}
		if _, err := envelope.DecodeWindows(append(b, 0)); err == nil {
			t.Error("a byte behind the end was accepted")
		}
	}
}

func TestDecodeWindowsRefusesMissingNumbersThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, missing := range [][]uint64{{0}, {2, 2}, {3, 1}, {6}} {
		w := envelope.Windows{Streams: []envelope.StreamWindow{{Stream: 1, High: 5, Missing: missing}}}
		if _, err := envelope.DecodeWindows(w.Append(nil)); err == nil || !strings.Contains(err.Error(), "up to 5") {
			t.Errorf("missing %v of 5: %v", missing, err)
		}
	}
}

func FuzzDecodeWindows(f *testing.F) {
	for _, w := range windowSamples() {
		f.Add(w.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := envelope.DecodeWindows(b)
		if err != nil {
			return
		}
		again, err := envelope.DecodeWindows(w.Append(nil))
		if err != nil {
			t.Fatalf("accepted windows do not survive: %v", err)
		}
		if !bytes.Equal(again.Append(nil), w.Append(nil)) {
			t.Fatal("accepted windows change when they are encoded again")
		}
	})
}
