package system

import (
	"bufio"
	"bytes"
	"context"
	"errors"

	"github.com/linkerhq/linker/pkg/delivery"
)

// NewProcess returns a process that runs any program, for tests.
func NewProcess(name, log, path string, args []string, report func(text string)) *Process {
	return &Process{name: name, log: log, path: path, args: args, report: report}
}

// Close ends the process for good.
func (p *Process) Close() error { return p.close(false) }

// Reserve reserves blocks of ports and returns the first port of each.
func Reserve(blocks int) (first []int, free func() error, err error) {
	p, err := reservePorts(blocks, portsUsed)
	if err != nil {
		return nil, nil, err
	}
	for n := range blocks {
		first = append(first, p.port(n, 0))
	}
	return first, p.Close, nil
}

// RemoveKeys removes the keys of a pattern from a Redis.
func RemoveKeys(ctx context.Context, url, pattern string) error {
	c, err := dialRedis(ctx, url)
	if err != nil {
		return err
	}
	defer c.close()
	return c.remove(pattern)
}

// AskRedis sends a command to a Redis and returns the answer.
func AskRedis(ctx context.Context, url string, words ...string) ([]string, error) {
	c, err := dialRedis(ctx, url)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.do(words...)
}

// ReadRedis reads the answer of a Redis.
func ReadRedis(answer []byte) ([]string, error) {
	return (&redisConn{in: bufio.NewReader(bytes.NewReader(answer))}).read(0)
}

// ParseMetrics reads what a service tells.
func ParseMetrics(text string) []Sample { return parseMetrics([]byte(text)) }

// FindIn looks for what must not be in a log.
func (s *System) FindIn(line string) (FindingCode, bool) { return s.finding(line) }

// Secret is one that services of the system show to each other.
func (s *System) Secret() (string, error) {
	if len(s.secrets) == 0 {
		return "", errors.New("there is none")
	}
	return s.secrets[0], nil
}

// HauntedItems is what a zombie makes of what it hears.
func HauntedItems(items []delivery.Item) []delivery.Item { return hauntedItems(items) }
