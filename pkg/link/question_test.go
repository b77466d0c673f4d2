package link_test

import (
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/link"
)

func TestBothSidesAskAndAnswer(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	for _, way := range []struct{ from, to *running }{{a, b}, {b, a}} {
		if !way.from.Asks() {
			t.Fatal("an end of this version does not ask another one of it")
		}
		question, answer := make([]byte, link.MaxQuestion), make([]byte, link.MaxAnswer)
		question[0], answer[0] = 1, 2
		if !way.from.Send(link.Question{N: 7, Text: question}) {
			t.Fatal("a question is not sent")
		}
		if got, is := receive(t, way.to).(link.Question); !is || got.N != 7 || string(got.Text) != string(question) {
			t.Fatalf("the question arrives as %T %d", got, got.N)
		}
		if !way.to.Send(link.Answer{N: 7, Text: answer}) || !way.to.Send(link.Answer{N: 8}) {
			t.Fatal("an answer is not sent")
		}
		if got, is := receive(t, way.from).(link.Answer); !is || got.N != 7 || string(got.Text) != string(answer) {
			t.Fatalf("the answer arrives as %T %d", got, got.N)
		}
		if got, is := receive(t, way.from).(link.Answer); !is || got.N != 8 || len(got.Text) != 0 {
			t.Fatalf("the empty answer arrives as %T %d with %d bytes", got, got.N, len(got.Text))
		}
		for _, wrong := range []link.Message{
			link.Question{N: 1}, link.Question{N: 1, Text: make([]byte, link.MaxQuestion+1)}, link.Answer{N: 1, Text: make([]byte, link.MaxAnswer+1)},
		} {
			if way.from.Send(wrong) {
				t.Errorf("%T of a wrong size was sent", wrong)
			}
		}
	}
}

func receive(t *testing.T, r *running) link.Message {
	t.Helper()
	select {
	case m := <-r.got:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrives")
		return nil
	}
}

// TestNobodyAsksAnEndThatDoesNotKnowQuestions speaks to one as ends of older versions do: they
// offer the older name of the protocol only.
func TestNobodyAsksAnEndThatDoesNotKnowQuestions(t *testing.T) {
	t.Parallel()
	_, r := byHand(t)
	if r.Asks() {
		t.Fatal("it asks")
	}
	if r.Send(link.Question{N: 1, Text: []byte("x")}) || r.Send(link.Answer{N: 1, Text: []byte("x")}) {
		t.Error("an end that does not know questions is sent some")
	}
	if !r.Send(link.Fast{Record: []byte("x")}) {
		t.Error("nothing is sent any more")
	}
}

// TestAnEndThatDoesNotKnowQuestionsIsDialledAllTheSame is an older version on the other side.
func TestAnEndThatDoesNotKnowQuestionsIsDialledAllTheSame(t *testing.T) {
	t.Parallel()
	files := newAuthority(t).files(t, there)
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{alpn}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	heard := make(chan []byte, 1)
	go func() {
		defer close(heard)
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		conn := raw.(*tls.Conn)
		defer conn.Close()
		if err := conn.Handshake(); err != nil {
			t.Error(err)
			return
		}
		if _, err := io.ReadFull(conn, make([]byte, len(hello(1, here, there, 1, make([]byte, 32))))); err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.Write(frame(2, text(nil, proof(t, conn, key, "linker link server", here, there)))); err != nil {
			t.Error(err)
			return
		}
		got := make([]byte, len(frame(8, []byte("x"))))
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Error(err)
		}
		heard <- got
	}()
	c, err := newEnd(t, here, link.Certificates{}).Dial(t.Context(), listener.Addr().String(), keyed())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if c.Asks() || c.Send(link.Question{N: 1, Text: []byte("x")}) || !c.Send(link.Fast{Record: []byte("x")}) {
		t.Error("it is taken for one that knows questions, or gets nothing")
	}
	r := run(t.Context(), c)
	// A ping may come first; what matters is that no frame of an unknown type does.
	if got := <-heard; len(got) > 4 && got[4] != 3 && got[4] != 8 {
		t.Errorf("it is sent %x", got)
	}
	_ = r.stop()
}
