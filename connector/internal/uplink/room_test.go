package uplink

import (
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// A record is written into memory that is taken once.
func TestARecordFitsItsRoom(t *testing.T) {
	t.Parallel()
	member := envelope.Recipient{User: ident.UserID(strings.Repeat("A", 32) + "-999999999999999999"), N: 1<<64 - 1}
	e := envelope.Envelope{
		Kind: envelope.KindMessage, Confirm: true, Remember: true, Stream: 1<<64 - 1, From: member.User, CreatedAt: 1<<62 - 1,
		Reference: strings.Repeat("é", 128), Network: 1<<64 - 1, Frame: make([]byte, 1<<20),
	}
	for _, members := range []int{1, 2, 4096} {
		e.To = make([]envelope.Recipient, members)
		for i := range e.To {
			e.To[i] = member
		}
		if size := len(e.Append(nil)); room(&e) < size || room(&e) > size+128 {
			t.Errorf("%d members: room for %d bytes, %d are needed", members, room(&e), size)
		}
	}
	e.To, e.Kind, e.Session, e.Frame = e.To[:1], envelope.KindFetch, 1<<64-1, nil
	e.Connector.Name, e.Request, e.Count = strings.Repeat("c", 63), 1<<64-1, 1<<62
	if size := len(e.Append(nil)); room(&e) < size || room(&e) > size+128 {
		t.Errorf("fetch: room for %d bytes, %d are needed", room(&e), size)
	}
}
