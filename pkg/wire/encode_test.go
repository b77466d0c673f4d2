package wire_test

import (
	"encoding/json"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

const hostile = "q\"\\\x00\n\x7f\u2028é😀</script>"

func TestEncodedFramesAreExactlyTheProtocol(t *testing.T) {
	t.Parallel()
	stamp := wire.Stamp{ID: ident.MessageID{1, 2, 3}, CreatedAt: 1700000000123}
	const id = `"id":"AQIDAAAAAAAAAAAAAAAAAA","createdAt":1700000000123`
	const quoted = `"q\"\\\u0000\u000a\u007f` + "\u2028é😀" + `</script>"`
	for _, test := range []struct{ got, want string }{
		{string(wire.AppendMessage(nil, "ANZ-1", []byte(`"\u0000x"`), hostile, stamp)), `{"type":"MESSAGE","data":{"from":"ANZ-1","content":"\u0000x"},"reference":` + quoted + `,` + id + `}`},
		{string(wire.AppendMessage(nil, "ANZ-1", []byte(`""`), "", stamp)), `{"type":"MESSAGE","data":{"from":"ANZ-1","content":""},` + id + `}`},
		{string(wire.AppendConfirmation(nil, hostile, stamp)), `{"type":"MESSAGE_CONFIRMATION","data":{"reference":` + quoted + `},` + id + `}`},
		{string(wire.AppendPresence(nil, true, "ANZ-1", stamp)), `{"type":"USER_CONNECTED","data":{"userId":"ANZ-1"},` + id + `}`},
		{string(wire.AppendPresence(nil, false, "ANZ-1", stamp)), `{"type":"USER_DISCONNECTED","data":{"userId":"ANZ-1"},` + id + `}`},
		{string(wire.AppendFetchComplete(nil, 25)), `{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":25}}`},
		{string(wire.AppendMissingAvailable(nil, 3)), `{"type":"MISSING_MESSAGES_AVAILABLE","data":{"count":3}}`},
		{string(wire.AppendAccepted(nil, "r", stamp.ID)), `{"type":"MESSAGE_ACCEPTED","data":{"reference":"r","id":"AQIDAAAAAAAAAAAAAAAAAA"}}`},
		{string(wire.AppendAccepted(nil, "", stamp.ID)), `{"type":"MESSAGE_ACCEPTED","data":{"id":"AQIDAAAAAAAAAAAAAAAAAA"}}`},
		{string(wire.AppendAuthRequired(nil)), `{"type":"AUTH_REQUIRED","data":{}}`},
		{string(wire.AppendAuthReply(nil, wire.AuthReply{AppID: hostile, UserID: "ANZ-1"})), `{"type":"AUTH_CLIENT_REPLY","data":{"appId":` + quoted + `,"userId":"ANZ-1","isAuthenticated":true}}`},
		{
			string(wire.AppendAuthReply(nil, wire.AuthReply{AppID: "a", UserID: "ANZ-1", Reason: wire.ReasonWrongDomain, Domain: "d-2", URLs: []string{"ws://a", "wss://b"}})),
			`{"type":"AUTH_CLIENT_REPLY","data":{"appId":"a","userId":"ANZ-1","isAuthenticated":false,"reason":"WRONG_DOMAIN","domain":"d-2","urls":["ws://a","wss://b"]}}`,
		},
		{string(wire.AppendInvalidMessage(nil, wire.Failure{Code: wire.CodeBadJSON, Message: hostile, Reference: "r"})), `{"type":"INVALID_MESSAGE","data":{"code":"BAD_JSON","message":` + quoted + `},"reference":"r"}`},
		{
			string(wire.AppendDeliverFailed(nil, wire.Failure{Code: wire.CodeQueueUnavailable, Message: "m", Retryable: true, RetryAfterMs: 5, Reference: hostile})),
			`{"type":"DELIVER_FAILED","data":{"code":"QUEUE_UNAVAILABLE","message":"m","retryable":true,"retryAfterMs":5},"reference":` + quoted + `}`,
		},
		{string(wire.AppendGoAway(nil, "shutting_down", 7)), `{"type":"GO_AWAY","data":{"reason":"shutting_down","reconnectInMs":7}}`},
		{string(wire.AppendSeq(nil, []byte(`{"type":"X"}`), 9)), `{"type":"X","seq":9}`},
		{string(wire.AppendLate(nil, []byte(`{"type":"X"}`))), `{"type":"X","late":true}`},
	} {
		if test.got != test.want {
			t.Errorf("\n got %s\nwant %s", test.got, test.want)
		}
		if !json.Valid([]byte(test.got)) {
			t.Errorf("not JSON: %s", test.got)
		}
	}
}

func TestAReferenceComesBackAsItWasSent(t *testing.T) {
	t.Parallel()
	frame := wire.AppendConfirmation(nil, hostile, wire.Stamp{})
	var got struct{ Data struct{ Reference string } }
	if err := json.Unmarshal(frame, &got); err != nil || got.Data.Reference != hostile {
		t.Errorf("got %q, %v", got.Data.Reference, err)
	}
}
