package embedded

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestTwoThatWriteBeforeTheyReadDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		client := newBuffered(near)
		sent := bytes.Repeat([]byte("x"), pipeBytes)
		if _, err := client.Write(sent); err != nil { // and nobody reads
			t.Fatal(err)
		}
		go func() { _, _ = far.Write([]byte("y")) }()
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) { // after the end
			t.Errorf("%d bytes arrived, %v", len(got), err)
		}
		if _, err := client.Write(sent); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after the end: %v", err)
		}
		if _, err := client.Read(sent); err == nil {
			t.Error("read after the end")
		}
	})
}

func TestAClientHearsOfAServerThatHasGoneOrTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client := newBuffered(near)
		if err := client.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(make([]byte, 2*pipeBytes)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write to a server that takes nothing: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read from a server that says nothing: %v", err)
		}
		if err := client.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		_ = far.Close()
		synctest.Wait()
		if _, err := client.Write(make([]byte, 1)); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a server that has gone: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("read from a server that has gone")
		}
	})
}

func TestAServerThatTakesNothingDoesNotKeepAnEndOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		client := newBuffered(near)
		if _, err := client.Write(make([]byte, pipeBytes)); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * linger)
		synctest.Wait()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the other end hears %v", err)
		}
	})
}
