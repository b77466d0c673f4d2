package lane

import (
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// followRoads tells the state over which connections other domains are reached now.
func (d *Driver) followRoads() {
	table := d.Roads.Table()
	if d.network == nil || table == d.table && d.network == d.routed {
		return
	}
	d.table, d.routed = table, d.network
	open := map[string]custody.Road{}
	for _, domain := range d.network.Network().Domains {
		if road, ok := table.Road(domain.Name); ok {
			// Lanes share the connections to a neighbour.
			open[domain.Name] = custody.Road{Conn: road.Conns[d.lane.Number()%len(road.Conns)]}
		}
	}
	d.step(&custody.RoadsChanged{Roads: open})
}

// overLinks carries out what a lane sends to other domains. What a connection does not
// take any more is sent again over another one: its end changes the table of roads.
type overLinks struct {
	roads    Roads
	receiver receiver
	channels map[uint64]uint64 // the connection of each open channel
}

func (o *overLinks) execute(fx *custody.Effects, m *Metrics) {
	for _, l := range fx.Leave {
		o.roads.Close(l.Conn, l.Channel)
		delete(o.channels, l.Channel)
	}
	for from := 0; from < len(fx.Hand); {
		first, to := fx.Hand[from], from+1
		for to < len(fx.Hand) && fx.Hand[to].Channel == first.Channel {
			to++
		}
		records := make([][]byte, 0, to-from)
		for _, h := range fx.Hand[from:to] {
			records = append(records, h.Record)
		}
		if first.N == 1 && o.roads.Open(first.Conn, first.Channel, o.receiver) {
			o.channels[first.Channel] = first.Conn
		}
		o.roads.Send(first.Conn, first.Channel, first.N, records)
		from = to
	}
	for _, h := range fx.HandFast {
		if !o.roads.Fast(h.Conn, h.Record) {
			m.Custody.DropFast(custody.DropNoRoad)
		}
	}
}

// end closes all channels.
func (o *overLinks) end() {
	for channel, conn := range o.channels {
		o.roads.Close(conn, channel)
	}
}

// receiver brings what neighbours say to the actor.
type receiver struct{ inbox *inbox }

// HandedOver implements roads.Receiver.
func (r receiver) HandedOver(channel, upTo uint64) {
	_ = failpoint.Hit(failpoint.LinkBeforeSettle)
	r.inbox.put(&custody.HandedOver{Channel: channel, UpTo: upTo})
}

// Refused implements roads.Receiver.
func (r receiver) Refused(channel, n uint64, code string) {
	r.inbox.put(&custody.Refused{Channel: channel, N: n, Code: code})
}
