package system

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/mongo"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
)

// Sample is one figure of a metric, with its labels as they are written.
type Sample struct {
	Name   string
	Labels string // such as lane="3"; "": none
	Value  float64
}

// Metrics asks a process for its figures. A process without an HTTP port has none.
func (p *Process) Metrics(ctx context.Context) ([]Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var all []Sample
	for _, url := range p.http {
		code, body, err := get(ctx, url+"/metrics", "")
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", p.name, err)
		}
		if code != http.StatusOK {
			return nil, fmt.Errorf("metrics of %s: answered with %d", p.name, code)
		}
		all = append(all, parseMetrics(body)...)
	}
	return all, nil
}

// parseMetrics reads the text format of Prometheus, as far as services write it.
func parseMetrics(text []byte) []Sample {
	var list []Sample
	for line := range bytes.Lines(text) {
		line := strings.TrimSpace(string(line))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		if end < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(line[:end], "{")
		list = append(list, Sample{strings.TrimSpace(name), strings.TrimSuffix(labels, "}"), value})
	}
	return list
}

// Sum adds the figures of that name, whatever their labels.
func Sum(list []Sample, name string) float64 {
	sum := 0.0
	for _, s := range list {
		if s.Name == name {
			sum += s.Value
		}
	}
	return sum
}

// Most is the largest of the figures of that name.
func Most(list []Sample, name string) float64 {
	most := 0.0
	for _, s := range list {
		if s.Name == name {
			most = max(most, s.Value)
		}
	}
	return most
}

// mostUsers is how many users one answer of a processor names at most.
const mostUsers = 500

// Whereabouts asks a processor of each domain who is connected there, and returns
// how many connectors each user is connected to.
func (s *System) Whereabouts(ctx context.Context) (map[string]int, error) {
	found := map[string]int{}
	for n, domain := range s.names {
		var answer struct {
			Total int
			Users []struct {
				UserID     string   `json:"userId"`
				Connectors []string `json:"connectors"`
			}
		}
		if err := s.ask(ctx, n, fmt.Sprintf("/v1/users?limit=%d", mostUsers), &answer); err != nil {
			return nil, err
		}
		if answer.Total > len(answer.Users) {
			return nil, fmt.Errorf("%s has %d users, of which %d can be seen", domain, answer.Total, len(answer.Users))
		}
		for _, u := range answer.Users {
			found[u.UserID] += len(u.Connectors)
		}
	}
	return found, nil
}

// errNotServed says that the programs do not tell.
var errNotServed = errors.New("there is no such path")

// NotServed says whether an observation cannot be made with these programs.
func NotServed(err error) bool { return errors.Is(err, errNotServed) }

// ask gets JSON from the first processor of the n-th domain, from 0.
func (s *System) ask(ctx context.Context, n int, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	code, body, err := get(ctx, "http://"+address(s.ports.port(n, portProcessor))+path, s.httpToken)
	if err == nil && code == http.StatusNotFound {
		err = errNotServed
	}
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("answered with %d: %.200s", code, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("ask a processor of %s for %s: %w", s.names[n], path, err)
	}
	return nil
}

// DeadLetter is what nobody could deliver.
type DeadLetter struct {
	Domain    string
	Number    string   `json:"id"`
	Reason    string   `json:"reason"`
	User      string   `json:"user"`  // the receiver
	Users     []string `json:"users"` // all of them, if there are several
	From      string   `json:"from"`
	MessageID string   `json:"messageId"`
}

const deadPage = 100

// DeadLetters asks the processors for the dead letters of all domains.
func (s *System) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	var all []DeadLetter
	for n, domain := range s.names {
		for after := ""; ; {
			var answer struct {
				Letters []DeadLetter `json:"letters"`
				Next    string       `json:"next"` // there are more behind this one
			}
			path := fmt.Sprintf("/v1/dead?limit=%d", deadPage)
			if after != "" {
				path += "&after=" + after
			}
			if err := s.ask(ctx, n, path, &answer); err != nil {
				return nil, err
			}
			for _, letter := range answer.Letters {
				letter.Domain = domain
				all = append(all, letter)
			}
			if after = answer.Next; after == "" {
				break
			}
		}
	}
	return all, nil
}

// RoadWaiting is how many rows wait in a domain for the roads to others, as its
// processors say.
func (s *System) RoadWaiting(ctx context.Context, domain string) (int64, error) {
	list := s.Processes(Processor, domain)
	if s.cfg.Standalone {
		list = s.processes
	}
	sum := 0.0
	for _, p := range list {
		samples, err := p.Metrics(ctx)
		if err != nil {
			return 0, err
		}
		sum += Sum(samples, "linker_lane_road_waiting_records")
	}
	return int64(sum), nil
}

// Waiting opens the mailbox of each domain and counts the rows that are owed to users
// who are at home there; the masters, who hear of the end of all others, are left out.
// The system must have ended.
func (s *System) Waiting(ctx context.Context) (map[string]int64, error) {
	all := map[string]int64{}
	for n, domain := range s.names {
		store, err := s.openMailbox(n)
		if err != nil {
			return nil, err
		}
		all[domain], err = s.count(ctx, store)
		if err = errors.Join(err, store.Close()); err != nil {
			return nil, fmt.Errorf("count the mailbox of %s: %w", domain, err)
		}
	}
	return all, nil
}

func (s *System) openMailbox(n int) (mailbox.Store, error) {
	log := slog.New(slog.DiscardHandler)
	if s.cfg.Servers != (Servers{}) {
		return mongo.Open(mongo.Config{URL: s.cfg.Servers.MongoDB, Database: "linker_" + s.names[n], Log: log})
	}
	return sqlite.Open(s.mailboxDir(n), log)
}

const targetsPage = 1000

func (s *System) count(ctx context.Context, store mailbox.Store) (int64, error) {
	sum := int64(0)
	for lane := range lanes {
		for after := ""; ; {
			targets, err := store.Targets(ctx, lane, after, targetsPage)
			if err != nil {
				return 0, err
			}
			for _, target := range targets {
				after = target
				isMaster := slices.ContainsFunc(s.Apps(), func(a App) bool { return string(a.Master) == target })
				if isMaster || strings.HasPrefix(target, "link/") {
					continue
				}
				rows, err := store.Count(ctx, mailbox.Query{To: target})
				if err != nil {
					return 0, err
				}
				sum += int64(rows)
			}
			if len(targets) < targetsPage {
				break
			}
		}
	}
	return sum, nil
}

// Finding is a line of a log that should not be there.
type Finding struct {
	Process string
	Code    FindingCode
	Line    string
}

// FindingCode says what is wrong with a line.
type FindingCode string

// What is looked for in logs.
const (
	FoundRace   FindingCode = "race"
	FoundPanic  FindingCode = "panic"
	FoundSecret FindingCode = "secret"
)

const (
	maxFindings = 20 // of one process
	maxLogLine  = 1 << 20
	maxFound    = 300 // characters of a line that are shown
)

// ScanLogs looks through the logs of all processes for what no log may hold:
// secrets, races, panics.
func (s *System) ScanLogs() ([]Finding, error) {
	var all []Finding
	for _, p := range s.processes {
		file, err := os.Open(p.log)
		if errors.Is(err, os.ErrNotExist) {
			continue // never started
		}
		if err != nil {
			return nil, err
		}
		found := 0
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, maxLogLine)
		for lines.Scan() && found < maxFindings {
			if code, bad := s.finding(lines.Text()); bad {
				line := lines.Text()
				if code == FoundSecret {
					line = "" // not a second time
				}
				all = append(all, Finding{p.name, code, line[:min(len(line), maxFound)]})
				found++
			}
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return nil, fmt.Errorf("scan the log of %s: %w", p.name, err)
		}
	}
	return all, nil
}

func (s *System) finding(line string) (FindingCode, bool) {
	switch {
	case slices.ContainsFunc(s.secrets, func(secret string) bool { return strings.Contains(line, secret) }):
		return FoundSecret, true
	case strings.Contains(line, "WARNING: DATA RACE"):
		return FoundRace, true
	case strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "), strings.Contains(line, "panic="):
		return FoundPanic, true
	default:
		return "", false
	}
}
