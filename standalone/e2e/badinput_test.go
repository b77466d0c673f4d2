package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestAFrameThatCannotBeTakenIsAnsweredAndTheSocketStaysUsable(t *testing.T) {
	t.Parallel()
	const to = `"to":"ANZ-1"`
	ask := func(data string) string {
		return `{"type":"FETCH_MISSING_MESSAGES_REQUEST","reference":"r","data":` + data + `}`
	}
	say := func(data string) string { return `{"type":"MESSAGE","reference":"r","data":` + data + `}` }
	many := make([]string, 4097)
	for i := range many {
		many[i] = "ANZ-" + strconv.Itoa(i)
	}
	for _, c := range []struct {
		frame, code, reference string
		names                  []string
	}{
		// B10–B12, B21–B23: not a JSON object.
		{`hello`, "BAD_JSON", "", nil},
		{`{`, "BAD_JSON", "", nil},
		{``, "BAD_JSON", "", nil},
		{`   `, "BAD_JSON", "", nil},
		{`[]`, "BAD_JSON", "", nil},
		{`[{"type":"MESSAGE"}]`, "BAD_JSON", "", nil},
		{`7`, "BAD_JSON", "", nil},
		{`"MESSAGE"`, "BAD_JSON", "", nil},
		{`null`, "BAD_JSON", "", nil},
		{`{"type":"MESSAGE",}`, "BAD_JSON", "", nil},
		{`{'type':'MESSAGE'}`, "BAD_JSON", "", nil},
		{`{"type":"MESSAGE"} {"type":"MESSAGE"}`, "BAD_JSON", "", nil},
		{"\ufeff" + say(`{`+to+`,"content":"x"}`), "BAD_JSON", "", nil},
		{`{"type":"MESSAGE","a":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`, "BAD_JSON", "", nil},
		{strings.Repeat("[", 60000), "BAD_JSON", "", nil},
		{`{"type":"MESSAGE","a":01}`, "BAD_JSON", "", nil},
		{"{\"type\":\"MESSAGE\",\"a\":\"\x01\"}", "BAD_JSON", "", nil},
		{`{"a":"\x"}`, "BAD_JSON", "", nil},
		// B18: duplicate keys.
		{`{"type":"MESSAGE","reference":"r","type":"MESSAGE","data":{}}`, "DUPLICATE_KEY", "r", []string{"type"}},
		{say(`{` + to + `,` + to + `,"content":"x"}`), "DUPLICATE_KEY", "r", []string{"to"}},
		{`{"type":"MESSAGE","reference":"r","\u0074ype":"MESSAGE","data":{}}`, "DUPLICATE_KEY", "r", []string{"type"}},
		// B19, B25: types.
		{`{"reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"type":null,"reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"type":7,"reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type", "7"}},
		{`{"type":{},"reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"type":"message","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type", "message"}},
		{`{"TYPE":"MESSAGE","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"Type":"MESSAGE","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"type":"","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type"}},
		{`{"type":"DELETE_EVERYTHING","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type", "DELETE_EVERYTHING"}},
		{`{"type":"` + strings.Repeat("X", 60000) + `","reference":"r"}`, "UNKNOWN_TYPE", "r", []string{"type", "XXXX"}},
		// B24, B48: references.
		{`{"type":"MESSAGE","reference":7,"data":{}}`, "INVALID_FIELD", "", []string{"reference", "7"}},
		{`{"type":"MESSAGE","reference":{},"data":{}}`, "INVALID_FIELD", "", []string{"reference"}},
		{`{"type":"MESSAGE","reference":"a\u0000","data":{}}`, "INVALID_FIELD", "", []string{"reference"}},
		{`{"type":"MESSAGE","reference":"\ud800","data":{}}`, "INVALID_FIELD", "", []string{"reference"}},
		{`{"type":"MESSAGE","reference":"` + strings.Repeat("x", 129) + `","data":{}}`, "INVALID_FIELD", "", []string{"reference", "128"}},
		// B27, B28: options.
		{`{"type":"MESSAGE","reference":"r","feature":"reliable","data":{}}`, "INVALID_FIELD", "r", []string{"feature", "reliable", "FAST"}},
		{`{"type":"MESSAGE","reference":"r","feature":7,"data":{}}`, "INVALID_FIELD", "r", []string{"feature", "7"}},
		{`{"type":"MESSAGE","reference":"r","confirmationEnabled":"yes","data":{}}`, "INVALID_FIELD", "r", []string{"confirmationEnabled", "yes"}},
		{`{"type":"MESSAGE","reference":"r","confirmationEnabled":1,"data":{}}`, "INVALID_FIELD", "r", []string{"confirmationEnabled", "1"}},
		// B40, B45, B46: messages.
		{`{"type":"MESSAGE","reference":"r"}`, "INVALID_FIELD", "r", []string{"data"}},
		{say(`null`), "INVALID_FIELD", "r", []string{"data"}},
		{say(`[]`), "INVALID_FIELD", "r", []string{"data"}},
		{say(`"x"`), "INVALID_FIELD", "r", []string{"data"}},
		{say(`{"content":"x"}`), "INVALID_FIELD", "r", []string{"data.to"}},
		{say(`{"to":null,"content":"x"}`), "INVALID_FIELD", "r", []string{"data.to"}},
		{say(`{"to":"","content":"x"}`), "INVALID_FIELD", "r", []string{"data.to"}},
		{say(`{"to":5,"content":"x"}`), "INVALID_FIELD", "r", []string{"data.to", "5"}},
		{say(`{"to":["ANZ-1"],"content":"x"}`), "INVALID_FIELD", "r", []string{"data.to"}},
		{say(`{"to":"ANZ-1\u0000","content":"x"}`), "INVALID_FIELD", "r", []string{"data.to"}},
		{say(`{"to":"ANZ-007","content":"x"}`), "INVALID_USER_ID", "r", []string{"data.to", "ANZ-007"}},
		{say(`{"to":"connector-01","content":"x"}`), "INVALID_USER_ID", "r", []string{"data.to"}},
		{say(`{"to":"ANZ","content":"x"}`), "INVALID_USER_ID", "r", []string{"data.to", "ANZ"}},
		{say(`{"to":" ANZ-1","content":"x"}`), "INVALID_USER_ID", "r", []string{"data.to"}},
		{say(`{` + to + `}`), "INVALID_FIELD", "r", []string{"data.content"}},
		{say(`{` + to + `,"content":null}`), "INVALID_FIELD", "r", []string{"data.content"}},
		{say(`{` + to + `,"content":{"a":1}}`), "INVALID_FIELD", "r", []string{"data.content"}},
		{say(`{` + to + `,"content":7}`), "INVALID_FIELD", "r", []string{"data.content", "7"}},
		{say(`{` + to + `,"content":["x"]}`), "INVALID_FIELD", "r", []string{"data.content"}},
		{say(`{` + to + `,"content":"\ud800"}`), "INVALID_FIELD", "r", []string{"data.content"}},
		{say(`{` + to + `,"content":"\ude00\ud83d"}`), "INVALID_FIELD", "r", []string{"data.content"}},
		// B51: groups.
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":[],"content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":null,"content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":"ANZ-1","content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to", "ANZ-1"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":["ANZ-1",7],"content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to", "7"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":["ANZ-1","ANZ-01"],"content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to", "ANZ-01"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":["ANZ-1"]}}`, "INVALID_FIELD", "r", []string{"data.content"}},
		{`{"type":"GROUP_MESSAGE","reference":"r","data":{"to":` + quoted(many) + `,"content":"x"}}`, "INVALID_FIELD", "r", []string{"data.to", "4096"}},
		// B52: fetches.
		{ask(`{"count":0}`), "INVALID_FIELD", "r", []string{"data.count", "0"}},
		{ask(`{"count":-1}`), "INVALID_FIELD", "r", []string{"data.count", "-1"}},
		{ask(`{"count":1.5}`), "INVALID_FIELD", "r", []string{"data.count", "1.5"}},
		{ask(`{"count":"5"}`), "INVALID_FIELD", "r", []string{"data.count", "5"}},
		{ask(`{"count":true}`), "INVALID_FIELD", "r", []string{"data.count"}},
		{ask(`[]`), "INVALID_FIELD", "r", []string{"data"}},
		// B53: acknowledgements, without the feature.
		{`{"type":"MESSAGE_ACK","reference":"r","data":{"upTo":-1}}`, "INVALID_FIELD", "r", []string{"data.upTo"}},
		{`{"type":"MESSAGE_ACK","reference":"r","data":{}}`, "INVALID_FIELD", "r", []string{"data.upTo"}},
		{`{"type":"MESSAGE_ACK","reference":"r","data":{"upTo":0}}`, "INVALID_FIELD", "r", []string{"ack"}},
		// B54: closing.
		{`{"type":"CLOSE_CONNECTION","reference":"r","data":{}}`, "INVALID_FIELD", "r", []string{"data.userId"}},
		{`{"type":"CLOSE_CONNECTION","reference":"r","data":{"userId":5}}`, "INVALID_FIELD", "r", []string{"data.userId", "5"}},
		{`{"type":"CLOSE_CONNECTION","reference":"r","data":{"userId":"ANZ"}}`, "INVALID_USER_ID", "r", []string{"data.userId", "ANZ"}},
	} {
		t.Run(fmt.Sprintf("%.60q", c.frame), func(t *testing.T) {
			t.Parallel()
			socket := shared.login(t, newUser())
			socket.send("%s", c.frame)
			f := socket.expectFailure("INVALID_MESSAGE", c.code, c.reference, c.names...)
			if f.Data.Message == "" || len(f.Data.Message) > 400 {
				t.Errorf("the message has %d bytes: %.500s", len(f.Data.Message), f.Data.Message)
			}
			socket.works()
		})
	}
}

func TestTypesOfServersAreForbiddenToClients(t *testing.T) {
	t.Parallel()
	victim := shared.login(t, newUser())
	for _, kind := range []string{
		"INTERNAL_MESSAGE", "MESSAGE_STATE_CHANGED", "USER_CONNECTED", "USER_DISCONNECTED", "GROUP_CONNECTOR_MESSAGE",
		"MESSAGE_CONFIRMATION", "AUTH_CLIENT_REPLY", "HOP_ACK", "AUTH_REQUIRED", "MESSAGE_ACCEPTED", "INVALID_MESSAGE",
		"DELIVER_FAILED", "GO_AWAY", "FETCH_MISSING_MESSAGES_COMPLETE", "MISSING_MESSAGES_AVAILABLE",
	} {
		c := shared.login(t, newUser())
		c.send(`{"type":"%s","data":{"userId":"%[2]s","to":"%[2]s","content":"x","reference":"x"},"reference":"r"}`, kind, victim.user)
		c.expectFailure("INVALID_MESSAGE", "FORBIDDEN_TYPE", "r", "type", kind)
		c.works()
	}
	victim.works()
}

func TestTooManyBadFramesEndTheSession(t *testing.T) {
	t.Parallel()
	c := shared.login(t, newUser())
	for range 200 {
		c.send(`{`)
		c.expectFailure("INVALID_MESSAGE", "BAD_JSON", "")
	}
	c.works()
	c.send(`{`)
	if got := c.closed(); got != 4400 {
		t.Errorf("got close code %d, want 4400", got)
	}
}

func TestTooManyPingsEndTheSession(t *testing.T) {
	t.Parallel()
	r := loginRaw(t, shared.WebsocketURL(), newUser())
	for range 10 {
		r.bytes(t, masked(fin|opPing, []byte("hello")))
		if op, payload, err := r.read(); err != nil || op != opPong || string(payload) != "hello" {
			t.Fatalf("got %x %q, %v, want the pong", op, payload, err)
		}
	}
	for range 50 {
		_, _ = r.conn.Write(masked(fin|opPing, nil)) // it may be closed already
	}
	if got := r.closeCode(t); got != 4429 {
		t.Errorf("got close code %d, want 4429", got)
	}
}

func TestFramesOfTheWrongKindEndTheConnectionWithTheirCode(t *testing.T) {
	t.Parallel()
	big := []byte(`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"` + strings.Repeat("x", 70000) + `"}}`)
	for name, c := range map[string]struct {
		bytes []byte
		code  int
	}{
		"binary":                             {masked(fin|opBinary, []byte(`{"type":"MESSAGE"}`)), 1003},
		"an empty binary":                    {masked(fin|opBinary, nil), 1003},
		"not UTF-8":                          {masked(fin|opText, []byte("{\"type\":\"\xff\xfe\"}")), 1007},
		"half a surrogate in UTF-8":          {masked(fin|opText, []byte("\"\xed\xa0\x80\"")), 1007},
		"70 KB":                              {masked(fin|opText, big), 1009},
		"70 KB in fragments":                 {append(masked(opText, big[:40000]), masked(fin|opContinuation, big[40000:])...), 1009},
		"a control frame of 126 bytes":       {masked(fin|opPing, make([]byte, 126)), 1002},
		"a fragmented ping":                  {masked(opPing, nil), 1002},
		"a reserved bit":                     {masked(fin|0x40|opText, []byte(`{}`)), 1002},
		"a reserved opcode":                  {masked(fin|0x3, []byte(`{}`)), 1002},
		"a continuation of nothing":          {masked(fin|opContinuation, []byte(`{}`)), 1002},
		"a message within a message":         {append(masked(opText, []byte(`{`)), masked(fin|opText, []byte(`}`))...), 1002},
		"not masked":                         {append(header(fin|opText, 0, 2), `{}`...), 1002},
		"a token of 1 MB in place of a name": {masked(fin|opText, []byte(auth("ANZ-"+strings.Repeat("1", 1<<20)))), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := loginRaw(t, shared.WebsocketURL(), newUser())
			r.bytes(t, c.bytes)
			if got := r.closeCode(t); got != c.code {
				t.Errorf("got close code %d, want %d", got, c.code)
			}
		})
	}
}

// The close frame reaches a client that is still sending.
func TestAFrameOf8MiBGets1009(t *testing.T) {
	t.Parallel()
	frame := masked(fin|opText, []byte(strings.Repeat("x", 8<<20)))
	for name, r := range map[string]*rawSocket{
		"logged in": loginRaw(t, shared.WebsocketURL(), newUser()), "not logged in": dialRaw(t, shared.WebsocketURL()),
	} {
		r.bytes(t, frame) // all of it: nobody reads meanwhile
		if got := r.closeCode(t); got != 1009 {
			t.Errorf("%s: got close code %d, want 1009", name, got)
		}
	}
	c := shared.login(t, newUser())
	_ = c.ws.Write(t.Context(), websocket.MessageText, frame)
	if got := c.closed(); got != 1009 {
		t.Errorf("a client that reads: got close code %d, want 1009", got)
	}
}

func TestTheLargestFrameIsTakenAndPassesEveryHop(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	frame := message(b, "", "r", "RELIABLE")
	content := strings.Repeat("x", 64<<10-len(frame))
	sender.say(b, content, "r")
	receiver.expectMessage(a, content)
	sender.expectConfirmation("r")
	sender.say(b, content+"x", "r")
	sender.expectClosed(1009)
}

func TestTenThousandFragmentsWithinTheLimitAreOneMessage(t *testing.T) {
	t.Parallel()
	a := newUser()
	r := loginRaw(t, shared.WebsocketURL(), a)
	content := strings.Repeat("y", 9930)
	text := message(a, content, "", "RELIABLE")
	for i := range len(text) {
		op := byte(opContinuation)
		if i == 0 {
			op = opText
		}
		if i == len(text)-1 {
			op |= fin
		}
		r.bytes(t, masked(op, []byte{text[i]}))
	}
	if f := r.frame(t); f.Data.Content != content {
		t.Errorf("got %v", f)
	}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
	with := func(key, value string) map[string]string {
		h := map[string]string{key: value}
		for k, v := range upgrade {
			if k != key {
				h[k] = v
			}
		}
		return h
	}
	for name, c := range map[string]struct {
		path    string
		headers map[string]string
		status  int
	}{
		"an upgrade":                {"/ws", upgrade, 101},
		"from any page":             {"/ws", with("Origin", "https://evil.example"), 101},
		"no upgrade":                {"/ws", nil, 426},
		"another path":              {"/", nil, 404},
		"another path, upgrading":   {"/ws/", upgrade, 404},
		"another version":           {"/ws", with("Sec-WebSocket-Version", "12"), 400},
		"a bad key":                 {"/ws", with("Sec-WebSocket-Key", "short"), 400},
		"headers of more than 8 KB": {"/ws", with("X-Much", strings.Repeat("x", 20<<10)), 431},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := handshake(t, shared, c.path, c.headers); got != c.status {
				t.Errorf("got status %d, want %d", got, c.status)
			}
		})
	}
}

func handshake(t *testing.T, s *system, path string, headers map[string]string) int {
	t.Helper()
	url := strings.Replace(strings.TrimSuffix(s.WebsocketURL(), "/ws"), "ws://", "http://", 1) + path
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	res, err := (&http.Transport{}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestAHandshakeThatTakesTooLongIsCut(t *testing.T) {
	t.Parallel()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(shared.WebsocketURL(), "ws://"), "/ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if err := errors.Join(conn.SetDeadline(began.Add(patience)), func() error { _, err := conn.Write([]byte("GET /ws HTTP/1.1\r\n")); return err }()); err != nil {
		t.Fatal(err)
	}
	var buf [512]byte
	for err == nil {
		_, err = conn.Read(buf[:])
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
	within(t, "the end", 6*time.Second, began)
}
