package roads

import (
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/linkstate"
)

// announce publishes an entry if our links have changed, or if it is time to repeat
// what it says.
func (r *Roads) announce(now time.Time) {
	up := r.up()
	if r.version == 0 || !slices.Equal(up, r.spoken) || now.Sub(r.spokeAt) >= linkstate.Refresh {
		r.speak(now, up)
	}
}

// up returns the neighbours with an open connection, ascending, as many as an entry
// can name.
func (r *Roads) up() []string {
	var up []string
	for _, c := range r.connections() {
		if !slices.Contains(up, c.neighbour.name) {
			up = append(up, c.neighbour.name)
		}
	}
	slices.Sort(up)
	return up[:min(len(up), linkstate.MaxUp)]
}

// speak tells everybody which neighbours we have a link to.
func (r *Roads) speak(now time.Time, up []string) {
	r.version = max(r.version+1, uint64(max(now.UnixMilli(), 1)))
	r.spoken, r.spokeAt = up, now
	entry := linkstate.Entry{Domain: r.cfg.Domain, Speaker: r.speaker, Version: r.version, Up: up}
	entries := []linkstate.Entry{entry}
	_ = r.states.Merge(entries, now) // where there is no room, others should hear of it all the same
	r.tellInside(entries)
	r.tellNeighbours(entries, nil)
}

// heardInside takes what services of our own domain say.
func (r *Roads) heardInside(data []byte) {
	news := r.heard(data, "inside the domain", func(e linkstate.Entry) bool {
		return e.Domain == r.cfg.Domain && e.Speaker == r.speaker // our own voice
	})
	r.tellNeighbours(news, nil)
}

// heardFrom takes what a neighbour says. About our own domain's links it may not
// speak: those we know from inside.
func (r *Roads) heardFrom(c *conn, data []byte) {
	news := r.heard(data, c.neighbour.name, func(e linkstate.Entry) bool { return e.Domain == r.cfg.Domain })
	r.tellInside(news)
	r.tellNeighbours(news, c)
}

// heard merges entries but those that are to be ignored, and returns the news.
func (r *Roads) heard(data []byte, from string, ignored func(linkstate.Entry) bool) (news []linkstate.Entry) {
	entries, err := linkstate.Decode(data)
	if err != nil {
		r.metrics.statesDropped[dropMalformed].Inc()
		if r.metrics.malformed.Due() {
			r.cfg.Log.Warn("link states that cannot be read are ignored", "from", from, "error", err)
		}
		return nil
	}
	news = r.states.Merge(slices.DeleteFunc(entries, ignored), time.Now())
	if len(news) == 0 {
		return nil
	}
	r.signsOfLife(news)
	r.poke()
	return news
}

// signsOfLife has those neighbours dialled soon of which there are news.
func (r *Roads) signsOfLife(news []linkstate.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range news {
		n := r.neighbours[e.Domain]
		if n == nil {
			continue
		}
		for _, d := range n.diallers {
			d.sign()
		}
	}
}

// tellInside passes news on to the services of our own domain. What is lost is
// repeated by who said it.
func (r *Roads) tellInside(news []linkstate.Entry) {
	for _, batch := range linkstate.Batches(news) {
		err := r.cfg.Plane.Publish(linkstate.StatesSubject(r.cfg.Domain), batch)
		if err != nil {
			r.metrics.statesDropped[dropUnpublished].Inc()
		}
	}
}

// tellNeighbours passes news on over all links but the one that they came over.
func (r *Roads) tellNeighbours(news []linkstate.Entry, from *conn) {
	batches := linkstate.Batches(news)
	if len(batches) == 0 {
		return
	}
	for _, c := range r.connections() {
		if c != from {
			c.states(batches)
		}
	}
}
