package wire_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

func TestDecodeReadsWhatClientsSend(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		in   string
		want wire.Frame
	}{
		"login": {
			`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"ANZ-123223","token":"t"}}`,
			wire.Frame{Type: wire.TypeAuthClient, Confirm: true, AppID: "app-id-343", UserID: "ANZ-123223", Token: "t"},
		},
		"login with features, a new one among them": {
			`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"b","features":["accept","ack","push","later"]}}`,
			wire.Frame{Type: wire.TypeAuthClient, Confirm: true, AppID: "a", UserID: "b", Wants: wire.Wants{Listed: true, Accept: true, Ack: true, Push: true}},
		},
		"login with an empty list": {
			`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"b","token":null,"features":[]}}`,
			wire.Frame{Type: wire.TypeAuthClient, Confirm: true, AppID: "a", UserID: "b", Wants: wire.Wants{Listed: true}},
		},
		"message": {
			`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"a\n\u0000é","from":"BNZ-1"},"feature":"FAST","reference":"r\u00e9","confirmationEnabled":false,"extra":{"type":1}}`,
			wire.Frame{Type: wire.TypeMessage, Feature: wire.Fast, Reference: "ré", To: []ident.UserID{"ANZ-1"}, Content: []byte(`"a\n\u0000é"`)},
		},
		"message with nulls for everything optional": {
			`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"","id":null},"feature":null,"reference":null,"confirmationEnabled":null,"id":null}`,
			wire.Frame{Type: wire.TypeMessage, Confirm: true, To: []ident.UserID{"ANZ-1"}, Content: []byte(`""`)},
		},
		"message with a name of its own": {
			`{"id":"m-1","type":"MESSAGE","data":{"to":"ANZ-1","content":"x"}}`,
			wire.Frame{Type: wire.TypeMessage, Confirm: true, To: []ident.UserID{"ANZ-1"}, Content: []byte(`"x"`), ClientID: "m-1"},
		},
		"message with its name in data": {
			`{"type":"MESSAGE","data":{"id":"m-2","to":"ANZ-1","content":"x"}}`,
			wire.Frame{Type: wire.TypeMessage, Confirm: true, To: []ident.UserID{"ANZ-1"}, Content: []byte(`"x"`), ClientID: "m-2"},
		},
		"escaped names, and data before type": {
			" \t\r\n" + `{"d\u0061ta":{"\u0074o":"ANZ-1","content":"\ud83d\ude00"},"t\u0079pe":"MESS\u0041GE"} `,
			wire.Frame{Type: wire.TypeMessage, Confirm: true, To: []ident.UserID{"ANZ-1"}, Content: []byte(`"\ud83d\ude00"`)},
		},
		"group, a set": {
			`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-2","ANZ-1","ANZ-2"],"content":"x"}}`,
			wire.Frame{Type: wire.TypeGroupMessage, Confirm: true, To: []ident.UserID{"ANZ-2", "ANZ-1"}, Content: []byte(`"x"`)},
		},
		"close": {
			`{"type":"CLOSE_CONNECTION","data":{"userId":"ANZ-1"}}`,
			wire.Frame{Type: wire.TypeCloseConnection, Confirm: true, To: []ident.UserID{"ANZ-1"}},
		},
		"fetch":                  {`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":7}}`, fetch(7)},
		"fetch without a count":  {`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{}}`, fetch(100)},
		"fetch with a null":      {`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":null}}`, fetch(100)},
		"fetch without data":     {`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`, fetch(100)},
		"fetch of very much":     {`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":99999999999999999999999}}`, fetch(2000)},
		"ack":                    {`{"type":"MESSAGE_ACK","data":{"upTo":18446744073709551615}}`, wire.Frame{Type: wire.TypeMessageAck, Confirm: true, UpTo: 1<<64 - 1}},
		"deep, but not too deep": {`{"type":"FETCH_MISSING_MESSAGES_REQUEST","x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, fetch(100)},
		"other cases are other names": {
			`{"type":"MESSAGE_ACK","TYPE":"MESSAGE","Data":1,"data":{"upTo":1,"UPTO":2}}`,
			wire.Frame{Type: wire.TypeMessageAck, Confirm: true, UpTo: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, problem := wire.Decode([]byte(test.in))
			if problem != nil {
				t.Fatalf("refused: %s %s", problem.Code, problem.Message)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("\n got %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func fetch(count int) wire.Frame {
	return wire.Frame{Type: wire.TypeFetch, Confirm: true, Count: count}
}

func TestDecodeRefusesWithCodeFieldAndExpectation(t *testing.T) {
	t.Parallel()
	message := func(data string) string { return `{"type":"MESSAGE","data":` + data + `}` }
	group := func(to string) string { return `{"type":"GROUP_MESSAGE","data":{"to":` + to + `,"content":"x"}}` }
	count := func(v string) string {
		return `{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":` + v + `}}`
	}
	members := make([]string, wire.MaxGroupMembers+1)
	for i := range members {
		members[i] = fmt.Sprintf(`"A-%d"`, i)
	}
	for _, test := range []struct {
		in, says string
		code     wire.Code
	}{
		{``, "empty", wire.CodeBadJSON},
		{`  `, "expected a JSON object", wire.CodeBadJSON},
		{`[1]`, "expected a JSON object", wire.CodeBadJSON},
		{`7`, "expected a JSON object", wire.CodeBadJSON},
		{`"MESSAGE"`, "expected a JSON object", wire.CodeBadJSON},
		{`null`, "expected a JSON object", wire.CodeBadJSON},
		{"\ufeff{}", `'\ufeff'`, wire.CodeBadJSON},
		{`{} {}`, "nothing behind the object", wire.CodeBadJSON},
		{`{"a":1,}`, "expected a name", wire.CodeBadJSON},
		{`{"a" 1}`, "expected ':'", wire.CodeBadJSON},
		{`{"a":1 "b":2}`, "expected ',' or '}'", wire.CodeBadJSON},
		{`{"a":[1 2]}`, "expected ',' or ']'", wire.CodeBadJSON},
		{`{"a":[1,]}`, "expected a value", wire.CodeBadJSON},
		{`{"a":tru}`, "expected true", wire.CodeBadJSON},
		{`{"a":01}`, "expected ','", wire.CodeBadJSON},
		{`{"a":1.}`, "expected a digit", wire.CodeBadJSON},
		{`{"a":1e}`, "expected a digit", wire.CodeBadJSON},
		{`{"a":-}`, "expected a digit", wire.CodeBadJSON},
		{`{"a":+1}`, "expected a value", wire.CodeBadJSON},
		{`{'a':1}`, "expected a name", wire.CodeBadJSON},
		{"{\"a\":\"\n\"}", "control character", wire.CodeBadJSON},
		{`{"a":"\x"}`, "escape sequence", wire.CodeBadJSON},
		{`{"a":"\u12g4"}`, "hexadecimal", wire.CodeBadJSON},
		{`{"a":"\ud800\u12g4"}`, "hexadecimal", wire.CodeBadJSON},
		{`{"a":"b`, "expected '\"'", wire.CodeBadJSON},
		{`{"a":`, "expected a value", wire.CodeBadJSON},
		{`{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "32 levels", wire.CodeBadJSON},
		{`{"data":` + strings.Repeat(`{"a":`, 40), "32 levels", wire.CodeBadJSON},
		{`{"type":"MESSAGE","type":"MESSAGE"}`, "type: stands twice", wire.CodeDuplicateKey},
		{`{"type":"MESSAGE","\u0074ype":"MESSAGE"}`, "type: stands twice", wire.CodeDuplicateKey},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","to":"ANZ-2","content":""}}`, "to: stands twice", wire.CodeDuplicateKey},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1"},"data":{"content":""}}`, "data: stands twice", wire.CodeDuplicateKey},
		{`{}`, "type: missing", wire.CodeUnknownType},
		{`{"TYPE":"MESSAGE"}`, "type: missing", wire.CodeUnknownType},
		{`{"type":null}`, "type: null", wire.CodeUnknownType},
		{`{"type":7}`, "type: 7", wire.CodeUnknownType},
		{`{"type":"message"}`, `type: "message"`, wire.CodeUnknownType},
		{`{"type":"USER_DISCONNECTED","data":{"userId":"ANZ-1"}}`, "servers only", wire.CodeForbiddenType},
		{`{"type":"INTERNAL_MESSAGE"}`, "servers only", wire.CodeForbiddenType},
		{`{"type":"MESSAGE"}`, "data: missing", wire.CodeInvalidField},
		{message(`[]`), "data: []", wire.CodeInvalidField},
		{message(`{"content":""}`), "data.to: missing", wire.CodeInvalidField},
		{message(`{"to":null,"content":""}`), "data.to: null", wire.CodeInvalidField},
		{message(`{"to":"","content":""}`), `data.to: ""`, wire.CodeInvalidField},
		{message(`{"to":5,"content":""}`), "data.to: 5", wire.CodeInvalidField},
		{message(`{"to":["ANZ-1"],"content":""}`), `data.to: ["ANZ-1"]`, wire.CodeInvalidField},
		{message(`{"to":"ANZ-1\u0000","content":""}`), "data.to: ", wire.CodeInvalidField},
		{message(`{"to":"\ud800","content":""}`), "data.to: ", wire.CodeInvalidField},
		{message(`{"to":"connector-01","content":""}`), `data.to: "connector-01"`, wire.CodeInvalidUserID},
		{message(`{"to":"ANZ-1"}`), "data.content: missing", wire.CodeInvalidField},
		{message(`{"to":"ANZ-1","content":null}`), "data.content: null", wire.CodeInvalidField},
		{message(`{"to":"ANZ-1","content":{"a":1}}`), "data.content: {", wire.CodeInvalidField},
		{message(`{"to":"ANZ-1","content":"\udc00"}`), "surrogate", wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"reference":7}`, "reference: 7", wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"reference":"` + strings.Repeat("é", 129) + `"}`, "128", wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"reference":"\u0000"}`, "reference: ", wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"feature":"reliable"}`, `feature: "reliable"`, wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"feature":7}`, "feature: 7", wire.CodeInvalidField},
		{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":""},"confirmationEnabled":"yes"}`, `confirmationEnabled: "yes"`, wire.CodeInvalidField},
		{group(`[]`), "data.to: []", wire.CodeInvalidField},
		{group(`null`), "data.to: null", wire.CodeInvalidField},
		{group(`"ANZ-1"`), `data.to: "ANZ-1"`, wire.CodeInvalidField},
		{group(`["ANZ-1","ANZ-007"]`), `data.to: "ANZ-007"`, wire.CodeInvalidField},
		{group(`["ANZ-1",7]`), "data.to: 7", wire.CodeInvalidField},
		{group(`[` + strings.Join(members, ",") + `]`), "4096", wire.CodeInvalidField},
		{count(`0`), "data.count: 0", wire.CodeInvalidField},
		{count(`-1`), "data.count: -1", wire.CodeInvalidField},
		{count(`1.5`), "data.count: 1.5", wire.CodeInvalidField},
		{count(`"5"`), `data.count: "5"`, wire.CodeInvalidField},
		{count(`99999999999999999999999.5`), "data.count", wire.CodeInvalidField},
		{`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":[]}`, "data: []", wire.CodeInvalidField},
		{`{"type":"MESSAGE_ACK","data":{"upTo":-1}}`, "data.upTo: -1", wire.CodeInvalidField},
		{`{"type":"MESSAGE_ACK","data":{}}`, "data.upTo: missing", wire.CodeInvalidField},
		{`{"type":"AUTH_CLIENT","data":{"userId":"ANZ-1"}}`, "data.appId: missing", wire.CodeInvalidField},
		{`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":7}}`, "data.userId: 7", wire.CodeInvalidField},
		{`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"u","features":"ack"}}`, "data.features", wire.CodeInvalidField},
		{`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"u","token":["secret"]}}`, "data.token: expected a string", wire.CodeInvalidField},
	} {
		_, problem := wire.Decode([]byte(test.in))
		if problem == nil {
			t.Errorf("%.80s: accepted", test.in)
			continue
		}
		if problem.Code != test.code || !strings.Contains(problem.Message, test.says) {
			t.Errorf("%.80s: got %s %q, want %s … %q", test.in, problem.Code, problem.Message, test.code, test.says)
		}
		if len(problem.Message) > 300 || !utf8.ValidString(problem.Message) {
			t.Errorf("%.80s: the message has %d bytes: %q", test.in, len(problem.Message), problem.Message)
		}
	}
}

func TestMembersOfAGroupAreASet(t *testing.T) {
	t.Parallel()
	for _, many := range []int{1, 7, 8, 9, 10, 100, wire.MaxGroupMembers} {
		var list []string
		var want []ident.UserID
		for i := range many {
			list = append(list, fmt.Sprintf(`"A-%d"`, i), fmt.Sprintf(`"A-%d" `, i/2), fmt.Sprintf("\n\"\\u0041-%d\"", i))
			want = append(want, ident.UserID(fmt.Sprintf("A-%d", i)))
		}
		f, problem := wire.Decode([]byte(`{"type":"GROUP_MESSAGE","data":{"to":[` + strings.Join(list, " , ") + `],"content":""}}`))
		if problem != nil || !slices.Equal(f.To, want) {
			t.Errorf("%d members, each three times: got %d, %+v", many, len(f.To), problem)
		}
	}
}

// Strings are read eight bytes at a time: what is special in them is seen at every place.
func TestStringsEndWhereTheyEnd(t *testing.T) {
	t.Parallel()
	for length := range 20 {
		for place := range length {
			for c := range 256 {
				text := []byte(strings.Repeat("x", length))
				text[place] = byte(c)
				in := []byte(`{"type":"MESSAGE","data":{"to":"A-1","content":"` + string(text) + `"}}`)
				if !utf8.Valid(in) {
					continue
				}
				f, problem := wire.Decode(in)
				if (problem == nil) != json.Valid(in) {
					t.Fatalf("%#x at %d of %d: %+v", c, place, length, problem)
				}
				if problem == nil && string(f.Content) != `"`+string(text)+`"` {
					t.Fatalf("%#x at %d of %d: content %q", c, place, length, f.Content)
				}
			}
		}
	}
	for _, c := range []string{"é", "☃", "😀", "\u007f", "\u0080"} {
		for before := range 10 {
			text := `"` + strings.Repeat("x", before) + c + c + `"`
			f, problem := wire.Decode([]byte(`{"type":"MESSAGE","data":{"to":"A-1","content":` + text + `}}`))
			if problem != nil || string(f.Content) != text {
				t.Errorf("%s: content %q, %+v", text, f.Content, problem)
			}
		}
	}
}

func TestARefusedFrameStillTellsItsTypeAndItsValidReference(t *testing.T) {
	t.Parallel()
	f, problem := wire.Decode([]byte(`{"reference":"r","type":"WHATEVER","data":{}}`))
	if problem == nil || f.Reference != "r" || f.Type != "WHATEVER" {
		t.Errorf("got %+v, %+v", f, problem)
	}
	f, problem = wire.Decode([]byte(`{"type":"AUTH_CLIENT","data":{"userId":"ANZ-1"}}`))
	if problem == nil || f.UserID != "ANZ-1" || f.Type != wire.TypeAuthClient {
		t.Errorf("got %+v, %+v", f, problem)
	}
}

func TestAWrongClientIDIsLeftToTheOneWhoWantsIt(t *testing.T) {
	t.Parallel()
	for _, id := range []string{`7`, `""`, `"` + strings.Repeat("x", 65) + `"`, `"\u0000"`, `{}`} {
		f, problem := wire.Decode([]byte(`{"type":"MESSAGE","id":` + id + `,"data":{"to":"ANZ-1","content":""}}`))
		if problem != nil || f.ClientID != "" || f.ClientIDProblem == nil || f.ClientIDProblem.Code != wire.CodeInvalidField {
			t.Errorf("id %s: got %+v, %+v", id, f, problem)
		}
	}
}

func TestContentIsTheBytesAsTheyCame(t *testing.T) {
	t.Parallel()
	in := []byte(`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"\/ \u002f"}}`)
	f, problem := wire.Decode(in)
	if problem != nil || string(f.Content) != `"\/ \u002f"` {
		t.Fatalf("got %q, %+v", f.Content, problem)
	}
	in[len(in)-10] = '!'
	if string(f.Content) == `"\/ \u002f"` {
		t.Error("the content was copied")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"\ud83d\ude00\\"},"reference":"r","id":"x"}`))
	f.Add([]byte(`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1","token":"\u0041","features":["ack"]}}`))
	f.Add([]byte(`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-1","B-2"],"content":""},"feature":"FAST"}`))
	f.Add([]byte(`{"type":"GROUP_MESSAGE","data":{"to":["A-1" , "A-2","A-3","A-4","A-5","A-6","A-7","A-8","A-9","A-\u0031","A-9"],"content":""}}`))
	f.Add([]byte(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":5}}`))
	f.Add([]byte(`{"type":"MESSAGE_ACK","data":{"upTo":5}}`))
	f.Add([]byte(`{"type":"CLOSE_CONNECTION","data":{"userId":"ANZ-1"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) {
			return
		}
		frame, problem := wire.Decode(b)
		var top map[string]json.RawMessage
		err := json.Unmarshal(b, &top)
		if err != nil && (problem == nil || problem.Code != wire.CodeBadJSON) {
			t.Fatalf("encoding/json refuses with %v, Decode says %+v", err, problem)
		}
		if err != nil || problem != nil {
			return
		}
		compare(t, frame, top)
	})
}

// distinct is a list without what stands in it already.
func distinct(list []ident.UserID) []ident.UserID {
	var first []ident.UserID
	for _, user := range list {
		if !slices.Contains(first, user) {
			first = append(first, user)
		}
	}
	return first
}

// compare reads the same frame with encoding/json.
func compare(t *testing.T, f wire.Frame, top map[string]json.RawMessage) {
	t.Helper()
	text := func(raw json.RawMessage) string {
		var s string
		if len(raw) > 0 && json.Unmarshal(raw, &s) != nil {
			t.Fatalf("%s is not a string", raw)
		}
		return s
	}
	same := func(what, got string, raw json.RawMessage) {
		if want := text(raw); got != want {
			t.Fatalf("%s is %q, want %q", what, got, want)
		}
	}
	var data map[string]json.RawMessage
	if raw := top["data"]; len(raw) > 0 && json.Unmarshal(raw, &data) != nil {
		t.Fatalf("data %s is not an object", raw)
	}
	same("type", string(f.Type), top["type"])
	same("reference", f.Reference, top["reference"])
	switch f.Type {
	case wire.TypeAuthClient:
		same("appId", f.AppID, data["appId"])
		same("userId", f.UserID, data["userId"])
		same("token", f.Token, data["token"])
	case wire.TypeMessage:
		same("to", string(f.To[0]), data["to"])
		same("content", text(f.Content), data["content"])
	case wire.TypeGroupMessage:
		var to []ident.UserID
		if err := json.Unmarshal(data["to"], &to); err != nil {
			t.Fatalf("to %s is no list of strings: %v", data["to"], err)
		}
		if distinct := distinct(to); !slices.Equal(f.To, distinct) {
			t.Fatalf("to is %q, want %q", f.To, distinct)
		}
		same("content", text(f.Content), data["content"])
	case wire.TypeCloseConnection:
		same("userId", string(f.To[0]), data["userId"])
	case wire.TypeFetch, wire.TypeMessageAck:
	default:
		t.Fatalf("accepted type %q", f.Type)
	}
}
