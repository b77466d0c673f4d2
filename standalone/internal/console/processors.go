package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// askTimeout is how long all processors together have to answer one look.
	askTimeout = 2 * time.Second
	// freshFor is how long a picture is shown again to others who look.
	freshFor = 900 * time.Millisecond
	// usersShown are asked of each domain.
	usersShown  = 50
	answerLimit = 4 << 20 // bytes
)

// report is what one processor has said; what it has not said is nil.
type report struct {
	domain  string
	url     string
	links   []linkReport
	network *networkReport
	users   *usersReport
	problem string // why something is missing
}

// link returns what the processor says of the link to a neighbour.
func (r report) link(neighbour string) (linkReport, bool) {
	for _, l := range r.links {
		if l.Neighbour == neighbour {
			return l, true
		}
	}
	return linkReport{}, false
}

// linkReport is an entry of the answer to GET /v1/links.
type linkReport struct {
	Neighbour   string             `json:"neighbour"`
	Cost        int                `json:"cost"`
	State       LinkState          `json:"state"`
	PeerState   LinkState          `json:"peerState"`
	Since       string             `json:"since"`
	Connections []connectionReport `json:"connections"`
	LastError   string             `json:"lastError"`
	Proof       string             `json:"proof"`
	Records     uint64             `json:"records"` // since the network has the link, as all that follow
	Bytes       uint64             `json:"bytes"`
	Fast        uint64             `json:"fast"`
}

type connectionReport struct {
	Unacknowledged int64   `json:"unacknowledged"`
	RTT            float64 `json:"rttMs"`
}

// networkReport is the answer to GET /v1/network.
type networkReport struct {
	Domain  string `json:"domain"`
	Domains []struct {
		Name string `json:"name"`
	} `json:"domains"`
	Links []struct {
		From  string    `json:"from"`
		To    string    `json:"to"`
		Cost  int       `json:"cost"`
		State LinkState `json:"state"`
	} `json:"links"`
}

// usersReport is the answer to GET /v1/users.
type usersReport struct {
	Domain string `json:"domain"`
	Total  int    `json:"total"`
	Users  []User `json:"users"`
}

// observer asks the processors of all domains, only when somebody wants to see the
// picture, and at most once in freshFor however many do.
type observer struct {
	find   func() []Domain  // static
	token  string           // static; empty: none is shown
	client *http.Client     // static
	now    func() time.Time // static

	turn chan struct{} // holds one token while somebody looks, who owns the fields below

	domains []Domain  // owned by whose turn it is: the last that were found
	rates   rates     // owned by whose turn it is
	picture Picture   // owned by whose turn it is: of the last look
	at      time.Time // owned by whose turn it is: when that look began
}

func newObserver(find func() []Domain, token string) *observer {
	return &observer{
		find: find, token: token, now: time.Now, turn: make(chan struct{}, 1), rates: rates{},
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 3, IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10},
			// The token is for the processor that was named, and for nobody it names.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// look returns a picture that is not older than freshFor.
func (o *observer) look(ctx context.Context) (Picture, error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return Picture{}, ctx.Err()
	}
	now := o.now()
	if !o.at.IsZero() && now.Sub(o.at) < freshFor {
		return o.picture, nil
	}
	// A meta server that is away does not take the domains off the picture.
	if found := o.find(); len(found) > 0 {
		o.domains = found
	}
	reports := o.askAll(ctx, o.domains)
	if err := ctx.Err(); err != nil {
		return Picture{}, err // whoever looked has gone, which is no news about processors
	}
	o.rates.observe(o.now(), reports)
	o.picture, o.at = compose(o.domains, reports, o.rates.of), now
	return o.picture, nil
}

func (o *observer) askAll(ctx context.Context, domains []Domain) []report {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var reports []report
	for _, d := range domains {
		for _, base := range d.processors() {
			reports = append(reports, report{domain: d.Name, url: base})
		}
	}
	var asking sync.WaitGroup
	for i := range reports {
		asking.Go(func() { o.askOne(ctx, &reports[i]) })
	}
	asking.Wait()
	return reports
}

// askOne fills in a report.
func (o *observer) askOne(ctx context.Context, r *report) {
	var links []linkReport
	var network networkReport
	var users usersReport
	var errs [3]error
	var asking sync.WaitGroup
	asking.Go(func() {
		errs[0] = o.ask(ctx, r.url+"/v1/links", &links)
	})
	asking.Go(func() {
		errs[1] = o.ask(ctx, r.url+"/v1/network", &network)
		errs[1] = cmp.Or(errs[1], belongs(network.Domain, r.domain))
	})
	asking.Go(func() {
		errs[2] = o.ask(ctx, fmt.Sprintf("%s/v1/users?limit=%d", r.url, usersShown), &users)
		errs[2] = cmp.Or(errs[2], belongs(users.Domain, r.domain))
	})
	asking.Wait()
	if errs[0] == nil && errs[1] == nil { // links do not say whose they are
		r.links = links
	}
	if errs[1] == nil {
		r.network = &network
	}
	if errs[2] == nil {
		r.users = &users
	}
	if err := cmp.Or(errs[0], errs[1], errs[2]); err != nil {
		r.problem = err.Error()
	}
}

func belongs(said, domain string) error {
	if said == domain {
		return nil
	}
	return fmt.Errorf("its processor says that it belongs to %.80q", said)
}

// ask returns errors that people can be shown: they hold no URL, which may carry a
// password.
func (o *observer) ask(ctx context.Context, target string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return errors.New("the URL of its processor is not valid")
	}
	if o.token != "" {
		req.Header.Set("Authorization", "Bearer "+o.token)
	}
	res, err := o.client.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("its processor does not answer within %s", askTimeout)
		}
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return fmt.Errorf("its processor cannot be asked: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return errors.New("its processor refuses the console: it wants a token")
	case http.StatusNotFound:
		return fmt.Errorf("its processor knows no %s", req.URL.Path)
	default:
		return fmt.Errorf("its processor answers %s to %s", res.Status, req.URL.Path)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, answerLimit)).Decode(answer); err != nil {
		return fmt.Errorf("its processor's answer to %s is not what was expected: %w", req.URL.Path, err)
	}
	return nil
}

// processors are the base URLs of the domain's processors.
func (d Domain) processors() []string {
	var urls []string
	for part := range strings.SplitSeq(d.Processor, ",") {
		if part = strings.TrimSuffix(strings.TrimSpace(part), "/"); part != "" {
			urls = append(urls, part)
		}
	}
	return urls
}
