package workload

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/message"
)

// Options are the parameters of a run, as results name them.
type Options struct {
	Connections int             `json:"connections"`
	Pause       Span            `json:"pause"` // between the end of a message and the next one, in closed loops
	Rate        float64         `json:"rate"`  // messages a second, in open loops; 0: a closed loop
	Duration    Span            `json:"duration"`
	Warmup      Span            `json:"warmup"`
	Drain       Span            `json:"drain"`    // how long is waited for what is under way at the end
	Patience    Span            `json:"patience"` // how long a closed loop waits for a message
	Settle      Span            `json:"settle"`   // how long clients are quiet before memory is read
	LoginWithin Span            `json:"loginWithin"`
	Concurrency int             `json:"concurrency"` // logins under way at once
	Members     int             `json:"members"`     // receivers of a group message
	Stored      int             `json:"stored"`      // messages that wait for each user who fetches
	Others      int             `json:"others"`      // messages that wait for others
	Users       int             `json:"users"`       // who are away, and fetch
	InFlight    int             `json:"inFlight"`    // messages of a sender that are not accepted yet
	Domains     int             `json:"domains"`
	Crashes     int             `json:"crashes"`
	Victim      Victim          `json:"victim"`
	Size        int             `json:"size"` // characters of a content
	Feature     message.Feature `json:"feature"`
	References  bool            `json:"references"`
	Confirm     bool            `json:"confirm"`
	Features    []string        `json:"features"` // of sockets; null: the field is left out
	App         string          `json:"app"`
	AppID       string          `json:"appId"`
	Token       string          `json:"-"`
	FirstUser   int64           `json:"firstUser"`
}

// Span is a duration that JSON has as text, such as 10ms.
type Span time.Duration

// String is the duration as people write it.
func (s Span) String() string { return time.Duration(s).String() }

// MarshalText is for JSON.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is for JSON.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

// Defaults are the options without any flag. The app is one of a network that
// standalone has described by itself; its master has another number.
func Defaults() Options {
	return Options{
		Connections: 1000, Pause: Span(10 * time.Millisecond), Duration: Span(10 * time.Second), Warmup: Span(2 * time.Second),
		Drain: Span(10 * time.Second), Patience: Span(10 * time.Second), Settle: Span(10 * time.Second), LoginWithin: Span(time.Minute),
		Concurrency: 100, Members: 1000, Stored: 2000, Others: 20_000, Users: 5, InFlight: 32, Domains: 4, Crashes: 3, Victim: VictimConnector, Size: 1000, Feature: message.Reliable, Confirm: true,
		App: "ANZ", AppID: "app-id-343", Token: "token", FirstUser: 300_000,
	}
}

const (
	maxConnections = 1_000_000
	maxSize        = 1 << 19
	maxMembers     = 4096
	maxStored      = 100_000 // for one user, which is what a mailbox takes
	maxOthers      = 100_000_000
	maxUsers       = 100_000
	maxInFlight    = 64 // more the server does not read
	maxDomains     = 16
	maxCrashes     = 100
)

// Check names every option that no workload can use.
func (o Options) Check() error {
	var mistakes []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	expect(o.Connections >= 1 && o.Connections <= maxConnections, "--connections %d: expected 1 to %d", o.Connections, maxConnections)
	expect(o.Size >= message.MinSize && o.Size <= maxSize, "--size %d: expected %d to %d characters", o.Size, message.MinSize, maxSize)
	expect(o.Members >= 1 && o.Members <= maxMembers, "--members %d: expected 1 to %d", o.Members, maxMembers)
	for _, number := range []struct {
		flag               string
		value, least, most int
	}{
		{"stored", o.Stored, 1, maxStored},
		{"others", o.Others, 0, maxOthers},
		{"users", o.Users, 1, maxUsers},
		{"in-flight", o.InFlight, 1, maxInFlight},
		{"domains", o.Domains, 1, maxDomains},
		{"crashes", o.Crashes, 1, maxCrashes},
	} {
		expect(number.value >= number.least && number.value <= number.most, "--%s %d: expected %d to %d", number.flag, number.value, number.least, number.most)
	}
	expect(o.Victim == VictimConnector || o.Victim == VictimProcessor, "--victim %q: expected %s or %s", string(o.Victim), VictimConnector, VictimProcessor)
	expect(o.Concurrency >= 1, "--concurrency %d: expected at least 1", o.Concurrency)
	expect(o.Rate >= 0 && o.Rate <= 1e9, "--rate %v: expected 0 to 1000000000 messages a second", o.Rate)
	expect(o.FirstUser >= 0 && o.FirstUser < 1e17, "--first-user %d: expected 0 to 99999999999999999", o.FirstUser)
	expect(o.Feature == message.Fast || o.Feature == message.Reliable, "--feature %q: expected %s or %s", string(o.Feature), message.Fast, message.Reliable)
	for _, span := range []struct {
		flag  string
		value Span
		least time.Duration
	}{
		{"pause", o.Pause, 0},
		{"duration", o.Duration, time.Millisecond},
		{"warmup", o.Warmup, 0},
		{"drain", o.Drain, 0},
		{"patience", o.Patience, time.Millisecond},
		{"settle", o.Settle, 0},
		{"login-timeout", o.LoginWithin, time.Millisecond},
	} {
		expect(time.Duration(span.value) >= span.least, "--%s %s: expected at least %s", span.flag, span.value, span.least)
	}
	for _, f := range o.Features {
		expect(slices.Contains([]string{"accept", "ack", "push"}, f), "--features %q: expected accept, ack and push, separated by commas", f)
	}
	expect(!o.References || o.Confirm, "--references and --confirm=false do not go together: nothing would be confirmed")
	return errors.Join(mistakes...)
}

// user is the id of the n-th client.
func (o Options) user(n int) string { return o.App + "-" + strconv.FormatInt(o.FirstUser+int64(n), 10) }
