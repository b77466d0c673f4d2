package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Reader reads what a Writer has written.
type Reader struct {
	in    *bufio.Reader
	line  []byte // of the operation last returned, without its end
	lines int64
	at    int64
	torn  bool
}

// NewReader returns a reader.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, writeBuffer)}
}

// Next returns the next operation, or io.EOF. The first one is always of KindRun. A
// last line that was not finished, because the writer was killed, is not returned.
func (r *Reader) Next() (Op, error) {
	var op Op
	if err := r.read(); err != nil {
		return op, err
	}
	if err := json.Unmarshal(r.line, &op); err != nil {
		return op, r.inLine(err)
	}
	if err := op.validate(); err != nil {
		return op, r.inLine(err)
	}
	switch {
	case (op.Kind == KindRun) != (r.lines == 1):
		return op, r.inLine(fmt.Errorf("op: %q, expected %q on the first line and nowhere else", op.Kind, KindRun))
	case op.At < r.at:
		return op, r.inLine(fmt.Errorf("t: %d, expected at least %d, that of the line before", op.At, r.at))
	}
	r.at = op.At
	return op, nil
}

// Line is the line of the operation last returned, valid until the next call.
func (r *Reader) Line() []byte { return r.line }

// Number is the number of that line, from 1.
func (r *Reader) Number() int64 { return r.lines }

// Torn says whether the file ended in the middle of a line.
func (r *Reader) Torn() bool { return r.torn }

func (r *Reader) inLine(err error) error {
	return fmt.Errorf("history, line %d: %w", r.lines, err)
}

// read reads one line.
func (r *Reader) read() error {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		switch {
		case err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF):
			return fmt.Errorf("read the history: %w", err)
		case len(r.line) > MaxLine+1:
			r.lines++
			return r.inLine(fmt.Errorf("more than %d bytes, expected a shorter line", MaxLine))
		case err == nil:
			r.line = bytes.TrimSuffix(r.line, []byte("\n"))
			r.lines++
			return nil
		case errors.Is(err, io.EOF):
			r.torn = len(r.line) > 0
			return io.EOF
		}
	}
}
