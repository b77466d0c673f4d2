package load

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/client"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// Numbers of users, beginning with a domain's first.
const (
	firstSender    = 100
	firstReceiver  = 300
	firstFast      = 500
	firstBystander = 600

	bystandersAt  = 2 // each connector
	fastSendersIn = 2 // each domain
	favourites    = 3 // receivers to whom a sender writes half of what it writes
)

// user is somebody with an id, and where it connects.
type user struct {
	id     string
	app    App
	domain string
	role   string
	number int64
	steady bool // never goes by itself
	// memory is of the user's Go clients, one after the other: a copy may come to the
	// next one.
	memory *client.Memory

	mu    sync.Mutex
	urls  []string // guarded by mu; of the user's home
	place int      // guarded by mu; of the connector to try next
}

// url is where to connect now.
func (u *user) url() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.urls[u.place%len(u.urls)]
}

// next makes the user try another connector.
func (u *user) next() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.place++
}

// move makes the user connect elsewhere.
func (u *user) move(urls []string) {
	if len(urls) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.urls, u.place = nil, u.place+1
	for _, url := range urls {
		u.urls = append(u.urls, endpoint(url))
	}
}

// endpoint is the address of the websocket at a URL.
func endpoint(url string) string {
	url = strings.TrimSuffix(url, "/")
	if _, rest, _ := strings.Cut(url, "://"); strings.Contains(rest, "/") {
		return url
	}
	return url + "/ws"
}

// random is what somebody draws from, another one for each name and the same in every
// run with the same seed.
func (l *Load) random(name string) *rand.Rand {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(l.cfg.Seed, hash.Sum64()))
}

// user makes somebody who is at home in a domain and belongs at one of its connectors.
func (l *Load) user(app App, d Domain, role string, number int64, place int) *user {
	u := &user{id: fmt.Sprintf("%s-%d", app.Name, number), app: app, domain: d.Name, role: role, number: number, place: place, memory: client.NewMemory(0)}
	for _, url := range d.URLs {
		u.urls = append(u.urls, endpoint(url))
	}
	l.users = append(l.users, u)
	return u
}

// habit is how a receiver lives.
type habit struct {
	client  string
	push    bool // gets everything by itself; otherwise it fetches
	visits  visits
	slow    bool // acknowledges late
	patient bool // never gives a connection up by itself
	twin    bool // has another socket as well
	late    bool // comes back long after it lost its connection
	dozes   bool // now and then does not read for a while, and so proves nothing
	bare    bool // names no features, not even an empty list: it speaks the base protocol
}

// visits is how long a receiver stays.
type visits int

const (
	stays    visits = iota
	restless        // goes and comes again, seconds later
	seldom          // is away most of the time
)

// habits of receivers, in turn.
func habits() []habit {
	return []habit{
		{client: history.ClientRaw, push: true, patient: true, dozes: true},
		{client: history.ClientAck, push: true},
		{client: history.ClientGo, push: true},
		{client: history.ClientRaw},
		{client: history.ClientRaw, push: true, visits: restless},
		{client: history.ClientAck, push: true, visits: restless},
		{client: history.ClientGo, push: true, visits: restless},
		{client: history.ClientAck, slow: true},
		{client: history.ClientRaw, push: true, visits: seldom},
		{client: history.ClientRaw, visits: seldom},
		{client: history.ClientAck, push: true, slow: true, patient: true},
		{client: history.ClientRaw, push: true, twin: true},
		{client: history.ClientGo, push: true, visits: seldom},
		{client: history.ClientRaw, visits: restless},
		{client: history.ClientAck, visits: restless},
		{client: history.ClientRaw, push: true},
		{client: history.ClientRaw, visits: restless, bare: true},
	}
}

// people makes everybody who takes part.
func (l *Load) people() {
	var receivers []*user
	kinds := habits()
	for i := range l.cfg.Receivers {
		d := l.cfg.Domains[i%len(l.cfg.Domains)]
		app := l.cfg.Apps[i/len(l.cfg.Domains)%len(l.cfg.Apps)]
		h, role := kinds[i%len(kinds)], history.RoleReceiver
		if h.twin {
			role = history.RoleTwin
		}
		place := i / len(l.cfg.Domains)
		u := l.user(app, d, role, d.First+firstReceiver+int64(place), place)
		u.steady = h.visits == stays
		receivers = append(receivers, u)
		l.takers = append(l.takers, l.receiver(u, h))
		if h.twin {
			other := h
			other.client, other.visits = history.ClientAck, restless
			l.takers = append(l.takers, l.receiver(u, other))
		}
	}
	receivers = append(receivers, l.bystanders()...)
	l.sendingPeople(receivers)
	for _, app := range l.cfg.Apps {
		number, _ := strconv.ParseInt(strings.TrimPrefix(app.Master, app.Name+"-"), 10, 64)
		u := l.user(app, l.homeOf(number), history.RoleMaster, number, 0)
		u.id = app.Master
		l.masters = append(l.masters, l.receiver(u, habit{client: history.ClientRaw, push: true}))
	}
}

// bystanders are at every connector.
func (l *Load) bystanders() []*user {
	var list []*user
	for _, d := range l.cfg.Domains {
		for i := range len(d.URLs) * bystandersAt {
			u := l.user(l.cfg.Apps[i/len(d.URLs)%len(l.cfg.Apps)], d, history.RoleBystander, d.First+firstBystander+int64(i), i%len(d.URLs))
			l.takers = append(l.takers, l.receiver(u, habit{client: history.ClientRaw, push: true, late: true}))
			list = append(list, u)
		}
	}
	return list
}

func (l *Load) sendingPeople(receivers []*user) {
	pace := time.Duration(float64(time.Second) * float64(l.cfg.Senders) / l.cfg.Rate)
	for i := range l.cfg.Senders {
		d := l.cfg.Domains[i%len(l.cfg.Domains)]
		place := i / len(l.cfg.Domains)
		app := l.cfg.Apps[place%len(l.cfg.Apps)]
		u := l.user(app, d, history.RoleSender, d.First+firstSender+int64(place), place)
		c := l.chooser(u, receivers)
		switch (i + place) % 4 { // every kind in every domain
		case 0:
			l.senders = append(l.senders, newSender(l, u, c, manner{pace: pace, careful: true}))
		case 1:
			l.senders = append(l.senders, newSender(l, u, c, manner{pace: pace, careful: true, ack: true}))
		case 2:
			l.senders = append(l.senders, newGoSender(l, u, c, pace))
		default:
			l.senders = append(l.senders, newSender(l, u, c, manner{pace: pace}))
		}
	}
	if l.cfg.FastRate <= 0 {
		return
	}
	pace = time.Duration(float64(time.Second) * float64(fastSendersIn*len(l.cfg.Domains)) / l.cfg.FastRate)
	for _, d := range l.cfg.Domains {
		for i := range fastSendersIn {
			u := l.user(l.cfg.Apps[i%len(l.cfg.Apps)], d, history.RoleFast, d.First+firstFast+int64(i), i)
			l.fast[u.id] = true
			l.senders = append(l.senders, &fastSender{load: l, user: u, pace: pace, choose: l.chooser(u, receivers), random: l.random("pace of " + u.id)})
		}
	}
}

// homeOf is the domain where a number is at home.
func (l *Load) homeOf(number int64) Domain {
	home := l.cfg.Domains[0]
	for _, d := range l.cfg.Domains {
		if d.First <= number && d.First >= home.First {
			home = d
		}
	}
	return home
}

// chooser draws receivers for a sender. It is owned by the sender.
type chooser struct {
	near, far []string // receivers in the sender's domain, and all
	favoured  []string
	cross     float64
	random    *rand.Rand
}

// chooser makes one for the receivers of the sender's app.
func (l *Load) chooser(sender *user, receivers []*user) *chooser {
	c := &chooser{cross: l.cfg.Cross, random: l.random("receivers of " + sender.id)}
	for _, u := range receivers {
		if u.app.Name != sender.app.Name {
			continue
		}
		c.far = append(c.far, u.id)
		if u.domain == sender.domain {
			c.near = append(c.near, u.id)
		}
	}
	if len(c.near) == 0 {
		c.near = c.far
	}
	for range favourites {
		c.favoured = append(c.favoured, c.any())
	}
	return c
}

func (c *chooser) any() string {
	list := c.near
	if c.random.Float64() < c.cross {
		list = c.far
	}
	return list[c.random.IntN(len(list))]
}

// one draws a receiver who is free; "": nobody was found.
func (c *chooser) one(free func(string) bool) string {
	for range 8 {
		user := c.any()
		if c.random.IntN(2) == 0 {
			user = c.favoured[c.random.IntN(len(c.favoured))]
		}
		if free(user) {
			return user
		}
	}
	return ""
}

// group draws 2 to 6 different receivers who are free, perhaps fewer.
func (c *chooser) group(free func(string) bool) []string {
	var members []string
	for range 2 + c.random.IntN(5) {
		if user := c.any(); free(user) && !slices.Contains(members, user) {
			members = append(members, user)
		}
	}
	return members
}

// split divides the receivers among so many choosers, or fewer.
func (c *chooser) split(parts int) []*chooser {
	var list []*chooser
	for i := range parts {
		part := &chooser{cross: c.cross, random: rand.New(rand.NewPCG(c.random.Uint64(), uint64(i)))}
		if part.far = everyNth(c.far, parts, i); len(part.far) == 0 {
			continue
		}
		part.near = slices.DeleteFunc(slices.Clone(c.near), func(user string) bool { return !slices.Contains(part.far, user) })
		if len(part.near) == 0 {
			part.near = part.far
		}
		for range favourites {
			part.favoured = append(part.favoured, part.any())
		}
		list = append(list, part)
	}
	return list
}

func everyNth(list []string, n, first int) []string {
	var some []string
	for i := first; i < len(list); i += n {
		some = append(some, list[i])
	}
	return some
}
