package message_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/wire"
	"github.com/linkerhq/linker/standalone/internal/bench/frame"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
)

const run = "ABCDEFGH"

// payload is what stands in a frame of a client.
func payload(b []byte) []byte { return b[strings.IndexByte(string(b), '{'):] }

func TestATemplateWritesFramesThatServersTake(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]message.Format{
		"plain":           {Run: run, To: []string{"ANZ-1"}, Size: 1000, Feature: message.Fast, Confirm: true},
		"shortest":        {Run: run, To: []string{"ANZ-1"}, Size: message.MinSize, Feature: message.Reliable, Confirm: true},
		"with references": {Run: run, To: []string{"ANZ-1"}, Size: 100, Feature: message.Reliable, Confirm: true, References: true},
		"unconfirmed":     {Run: run, To: []string{"ANZ-1"}, Size: 100, Feature: message.Reliable},
		"with ids":        {Run: run, To: []string{"ANZ-1"}, Size: 100, Feature: message.Reliable, Confirm: true, IDs: true},
		"a group":         {Run: run, To: []string{"ANZ-1", "ANZ-2"}, Group: true, Size: 100, Feature: message.Fast, Confirm: true},
	} {
		template := message.NewTemplate(f)
		for _, h := range []message.Header{{Number: 1, Time: 2}, {Number: 1 << 40, Time: 1<<63 - 1}} {
			b := payload(template.Frame(h))
			if _, problem := wire.Decode(b); problem != nil {
				t.Fatalf("%s: %s is refused: %s", name, b, problem.Message)
			}
			var got struct {
				Type, Feature string
				Data          struct {
					To      any
					Content string
				}
				Reference, ID       *string
				ConfirmationEnabled *bool
			}
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Data.Content) != f.Size || got.Feature != string(f.Feature) || (got.Reference != nil) != f.References || (got.ConfirmationEnabled == nil) != f.Confirm {
				t.Errorf("%s: got %s", name, b)
			}
			if (got.ID != nil) != f.IDs || f.IDs && *got.ID != fmt.Sprintf("%s%016x-%016x", run, h.Number, h.Time) {
				t.Errorf("%s: got %s", name, b)
			}
			scanned, err := message.ScanMessage(b, run, f.Size)
			if err != nil || scanned != h {
				t.Errorf("%s: got %+v, %v, expected %+v", name, scanned, err, h)
			}
			if f.References {
				if got, is := message.ScanReference(b); !is || got != h {
					t.Errorf("%s: got %+v in the reference, expected %+v", name, got, h)
				}
			}
		}
	}
}

// delivered is a frame as a server writes it.
func delivered(from string, h message.Header, size int) []byte {
	var in struct {
		Data struct{ Content json.RawMessage }
	}
	template := message.NewTemplate(message.Format{Run: run, To: []string{from}, Size: size, Feature: message.Fast, Confirm: true})
	if err := json.Unmarshal(payload(template.Frame(h)), &in); err != nil {
		panic(err)
	}
	return wire.AppendMessage(nil, "ANZ-7", in.Data.Content, "", wire.Stamp{CreatedAt: 1})
}

func TestTheScannerReadsWhatServersDeliver(t *testing.T) {
	t.Parallel()
	h := message.Header{Number: 77, Time: 123456789}
	b := delivered("ANZ-7", h, 200)
	if got := message.KindOf(b); got != message.Delivered {
		t.Errorf("got %s", got)
	}
	got, err := message.ScanMessage(b, run, 200)
	if err != nil || got != h {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := message.Check(b, h, "ANZ-7", 200); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another sender": message.Check(b, h, "ANZ-8", 200),
		"another size":   message.Check(b, h, "ANZ-7", 201),
		"another number": message.Check(b, message.Header{Number: 78, Time: h.Time}, "ANZ-7", 200),
		"another type":   message.Check([]byte(strings.Replace(string(b), "MESSAGE", "MASSAGE", 1)), h, "ANZ-7", 200),
		"no JSON":        message.Check(b[:len(b)-1], h, "ANZ-7", 200),
	} {
		if !errors.Is(err, message.ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := message.ScanMessage(b, "HGFEDCBA", 200); !errors.Is(err, message.ErrStranger) {
		t.Errorf("of another run: got %v", err)
	}
	for _, size := range []int{199, 201, 1000, 0} {
		if _, err := message.ScanMessage(b, run, size); !errors.Is(err, message.ErrDamaged) {
			t.Errorf("size %d: got %v", size, err)
		}
	}
}

func TestKindsAreThoseOfTheProtocol(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]message.Kind{
		string(wire.AppendConfirmation(nil, "r", wire.Stamp{})):                       message.Confirmed,
		string(wire.AppendAccepted(nil, "r", wire.Stamp{}.ID)):                        message.Accepted,
		string(wire.AppendAuthReply(nil, wire.AuthReply{AppID: "a", UserID: "u"})):    message.LoggedIn,
		string(wire.AppendAuthRequired(nil)):                                          message.Failed,
		`{"type":"DELIVER_FAILED","data":{"code":"QUEUE_UNAVAILABLE","message":"m"}}`: message.Failed,
		`{"type":"GO_AWAY","data":{}}`:                                                message.Going,
		`{"type":"USER_CONNECTED"}`:                                                   message.Other,
		`{"data":{}}`:                                                                 message.Other,
		`{"type":"MESSAGE`:                                                            message.Other,
		``:                                                                            message.Other,
	} {
		if got := message.KindOf([]byte(text)); got != want {
			t.Errorf("%s: got %s, expected %s", text, got, want)
		}
	}
}

func TestLoginsAndAcknowledgementsAreFramesOfClients(t *testing.T) {
	t.Parallel()
	for _, l := range []struct {
		features []string
		want     string
	}{{nil, `"token":"t\""}`}, {[]string{}, `"features":[]`}, {[]string{"ack"}, `"features":["ack"]`}} {
		b, err := message.AppendLogin(nil, message.Login{AppID: "app-id-343", UserID: "ANZ-1", Token: `t"`, Features: l.features})
		if err != nil {
			t.Fatal(err)
		}
		if _, problem := wire.Decode(payload(b)); problem != nil || !strings.Contains(string(b), l.want) {
			t.Errorf("%s: %v, expected %s", b, problem, l.want)
		}
	}
	for _, n := range []int64{1, 9, 1 << 50} {
		b := message.AppendAck(nil, n)
		if _, problem := wire.Decode(payload(b)); problem != nil {
			t.Errorf("%s: %v", b, problem)
		}
		if header := strings.IndexByte(string(b), '{'); string(frame.AppendHeader(nil, frame.Text, len(b)-header)) != string(b[:header]) {
			t.Errorf("%d: the header is %x", n, b[:header])
		}
	}
}

func TestSeq(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		`{"type":"MESSAGE","seq":12,"data":{}}`: 12, `{"seq":9}`: 9, `{"type":"MESSAGE"}`: 0, `{"seq":x}`: 0, `"seq":`: 0,
	} {
		if got, is := message.ScanSeq([]byte(text)); got != want || is != (want > 0) {
			t.Errorf("%s: got %d, %v", text, got, is)
		}
	}
}

func TestAnswersAreDecoded(t *testing.T) {
	t.Parallel()
	got, err := message.ReadAnswer([]byte(`{"type":"DELIVER_FAILED","data":{"code":"RATE_LIMITED","reason":"r","isAuthenticated":true}}`))
	if want := (message.Answer{"DELIVER_FAILED", "RATE_LIMITED", "r", true}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := message.ReadAnswer([]byte(`{`)); err == nil {
		t.Error("half a frame was read")
	}
}

func FuzzScanners(f *testing.F) {
	f.Add(delivered("ANZ-7", message.Header{Number: 1, Time: 2}, 100), 100)
	f.Add([]byte(`{"type":"MESSAGE","data":{"content":"ABCDEFGH`), 42)
	f.Add([]byte(`{"reference":"0000000000000001-0000000000000002"}`), -1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if h, err := message.ScanMessage(b, run, size); err == nil {
			if !strings.Contains(string(b), run) || size < message.MinSize {
				t.Errorf("got %+v from %q", h, b)
			}
		}
		_, _ = message.ScanReference(b)
		if n, is := message.ScanSeq(b); n < 0 || !is && n != 0 {
			t.Errorf("got %d, %v", n, is)
		}
		_ = message.KindOf(b)
	})
}

// It counts what all goroutines allocate, so it is not parallel to others.
func TestAMessageCostsNoAllocation(t *testing.T) {
	template := message.NewTemplate(message.Format{Run: run, To: []string{"ANZ-7"}, Size: 1000, Feature: message.Fast, Confirm: true, References: true})
	b := delivered("ANZ-7", message.Header{Number: 1, Time: 2}, 1000)
	confirmation := payload(template.Frame(message.Header{Number: 1, Time: 2}))
	read := true
	allocated := testing.AllocsPerRun(100, func() {
		template.Frame(message.Header{Number: 5, Time: 6})
		_, err := message.ScanMessage(b, run, 1000)
		_, is := message.ScanReference(confirmation)
		read = read && err == nil && is && message.KindOf(b) == message.Delivered
	})
	if allocated > 0 || !read {
		t.Errorf("%v allocations; all read: %v", allocated, read)
	}
}

func TestAFetchIsAFrameThatServersTake(t *testing.T) {
	t.Parallel()
	b := payload(message.AppendFetch(nil, 2000))
	request, problem := wire.Decode(b)
	if problem != nil || request.Type != wire.TypeFetch {
		t.Fatalf("%s: got %+v, %v", b, request, problem)
	}
	complete := []byte(`{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":25}}`)
	if kind := message.KindOf(complete); kind != message.Fetched {
		t.Errorf("got %s", kind)
	}
	if left, is := message.ScanLeft(complete); !is || left != 25 {
		t.Errorf("got %d, %t", left, is)
	}
	if _, is := message.ScanLeft([]byte(`{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{}}`)); is {
		t.Error("something is left where nothing is said")
	}
}
