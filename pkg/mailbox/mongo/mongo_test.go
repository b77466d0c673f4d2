package mongo_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/mongo"
	"github.com/linkerhq/linker/pkg/mailboxtest"
)

// serverVariable names the server that the tests use; those that need none run
// without it.
const serverVariable = "MONGODB_URI"

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	serverURL(t)
	mailboxtest.Run(t, func(t *testing.T) mailbox.Store { return open(t, database(t)) })
}

func TestStoreConformsWithAJournalOfSmallPieces(t *testing.T) {
	t.Parallel()
	serverURL(t)
	mailboxtest.Run(t, func(t *testing.T) mailbox.Store {
		s := open(t, database(t))
		s.SetLimits(4096, 1024, 7)
		return s
	})
}

func TestWhatWasStoredIsThereInAnotherStore(t *testing.T) {
	t.Parallel()
	name := database(t)
	first := openAt(t, serverURL(t), name)
	noError(t, first.Put(t.Context(), []mailbox.Row{row(1), row(2)}))
	noError(t, first.MarkProved(t.Context(), []mailbox.Key{key(row(1))}))
	noError(t, first.SaveLane(t.Context(), 7, change(5)))
	noError(t, first.PutAnnounced(t.Context(), 7, mailbox.Announced{User: "A-1", Connected: true, N: 9}))
	noError(t, first.Close())

	s := open(t, name)
	rows, more, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 9})
	noError(t, err)
	if len(rows) != 2 || more || !rows[0].Proved || rows[1].Proved || string(rows[1].Record) != "record 2" {
		t.Errorf("rows %+v, more %v", rows, more)
	}
	wantLane(t, s, 7, 5)
	a, found, err := s.GetAnnounced(t.Context(), 7, "A-1")
	noError(t, err)
	if !found || !a.Connected || a.N != 9 {
		t.Errorf("announced %+v, found %v", a, found)
	}
}

func TestOpenRefusesWhatIsNoURLWithoutQuotingThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "secret-word", "redis://u:secret-word@127.0.0.1/db", "mongodb://", "mongodb://u:secret-word@/db",
		"mongodb://u:secret-word:@127.0.0.1/db", "mongodb://u:%secret-word@127.0.0.1/db", "mongodb://u:secret-word/@127.0.0.1/db",
		"mongodb://u:secret-word@127.0.0.1:port/db", "mongodb://u:secret-word@127.0.0.1/%zz",
		"mongodb://u:secret-word@127.0.0.1/db?w=0&journal=true", "mongodb://u:secret-word@127.0.0.1/db?tls=secret-word",
		"mongodb://127.0.0.1/db?tlsCertificateKeyFilePassword=%secret-word", "mongodb://u:secret-word@127.0.0.1/db?authMechanism=secret-word",
		"mongodb+srv://u:secret-word@127.0.0.1:27017/db", "mongodb://u:secret-word@127.0.0.1/db.name", "mongodb://u:secret-word@127.0.0.1/" + strings.Repeat("x", 64),
	} {
		s, err := mongo.Open(mongo.Config{URL: url, Database: "domain-01", Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("Open takes %q", url)
			noError(t, s.Close())
			continue
		}
		if strings.Contains(err.Error(), "secret") || !strings.HasPrefix(err.Error(), "open mailbox: ") {
			t.Errorf("Open(%q) reports %v", url, err)
		}
	}
	_, err := mongo.Open(mongo.Config{URL: "mongodb://127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), `"" is not the name of a database`) {
		t.Errorf("without a database Open reports %v", err)
	}
}

func TestTheURLNamesTheDatabaseAndElseTheConfiguration(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"mongodb://127.0.0.1":                                 "domain-01",
		"mongodb://127.0.0.1:1/":                              "domain-01",
		"mongodb://u:p%2Fw%40@127.0.0.1:1,127.0.0.1:2/?w=1":   "domain-01",
		"mongodb://127.0.0.1:1/mine":                          "mine",
		"mongodb://u:p%2Fw@127.0.0.1:1/my%2Ddb?authSource=a%": "",
		"mongodb://u:p%2Fw@127.0.0.1:1/my%2Ddb?authSource=a":  "my-db",
	} {
		s, err := mongo.Open(mongo.Config{URL: url, Database: "domain-01", Log: slog.New(slog.DiscardHandler)})
		if want == "" {
			if err == nil {
				t.Errorf("Open takes %q", url)
			}
			continue
		}
		noError(t, err)
		if got := s.Database().Name(); got != want {
			t.Errorf("%s: database %q, want %q", url, got, want)
		}
		noError(t, s.Close())
	}
}

func TestOnlyDuplicatesCountAsStored(t *testing.T) {
	t.Parallel()
	failed := func(concern *driver.WriteConcernError, codes ...int) error {
		bulk := driver.BulkWriteException{WriteConcernError: concern}
		for _, code := range codes {
			bulk.WriteErrors = append(bulk.WriteErrors, driver.BulkWriteError{WriteError: driver.WriteError{Code: code}})
		}
		return bulk
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{failed(nil, 11000), true},
		{failed(nil, 11000, 11000), true},
		{fmt.Errorf("wrapped: %w", failed(nil, 11000)), true},
		{failed(nil, 11000, 50), false},
		{failed(nil, 121), false},
		{failed(&driver.WriteConcernError{Code: 64}, 11000), false},
		{failed(&driver.WriteConcernError{Code: 64}), false},
		{failed(nil), false},
		{driver.CommandError{Code: 11000}, false},
		{context.DeadlineExceeded, false},
		{nil, false},
	} {
		if got := mongo.OnlyDuplicates(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestARowThatDoesNotFitIsAnErrorBesideDuplicates(t *testing.T) {
	t.Parallel()
	s := open(t, database(t))
	large := row(2)
	large.Record = make([]byte, 16<<20)
	noError(t, s.Put(t.Context(), []mailbox.Row{row(1)}))
	if err := s.Put(t.Context(), []mailbox.Row{row(1), large, row(3)}); err == nil {
		t.Error("Put of a row of 16 MiB reports success")
	}
}

func TestManyRowsArePutProvedAndDeletedInOneCall(t *testing.T) {
	t.Parallel()
	s := open(t, database(t))
	var rows []mailbox.Row
	var keys []mailbox.Key
	for n := range int64(3500) {
		rows = append(rows, row(n))
		keys = append(keys, key(rows[n]))
	}
	rows[1700].Record = make([]byte, 5<<20)
	noError(t, s.Put(t.Context(), rows))
	wantCount(t, s, len(rows))
	noError(t, s.MarkProved(t.Context(), keys[500:]))
	wantCount(t, s, 500)
	noError(t, s.DeleteProved(t.Context(), "A-1", rows[3400].Pos))
	got, _, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 5000})
	noError(t, err)
	if len(got) != 600 || got[500].Pos != rows[3400].Pos {
		t.Errorf("%d rows are left, want the first 500 and the last 100", len(got))
	}
	noError(t, s.Delete(t.Context(), keys))
	got, _, err = s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 1})
	noError(t, err)
	if len(got) != 0 {
		t.Errorf("row %+v is left", got[0])
	}
}

func TestManyMayAnnounceAUserForTheFirstTime(t *testing.T) {
	t.Parallel()
	s := open(t, database(t))
	var wg sync.WaitGroup
	for round := range 20 {
		user := ident.UserID(fmt.Sprintf("A-%d", round))
		for n := range uint64(8) {
			wg.Go(func() {
				err := s.PutAnnounced(t.Context(), 1, mailbox.Announced{User: user, N: n + 1})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	list, err := s.ListAnnounced(t.Context(), 1, envelope.Position{})
	noError(t, err)
	if len(list) != 20 {
		t.Errorf("%d users, want 20", len(list))
	}
}

func TestServersFindRowsByAnIndex(t *testing.T) {
	t.Parallel()
	s := open(t, database(t))
	for user := range 20 {
		var rows []mailbox.Row
		for n := range int64(100) {
			r := row(n)
			r.To, r.Lane, r.Stored = fmt.Sprintf("A-%d", user), user%4, n
			rows = append(rows, r)
		}
		noError(t, s.Put(t.Context(), rows))
	}
	for name, command := range mongo.Commands("A-7", envelope.Position{Generation: 1, Offset: 90}, 3) {
		var plan bson.Raw
		err := s.Database().RunCommand(t.Context(), bson.D{{Key: "explain", Value: command}, {Key: "verbosity", Value: "queryPlanner"}}).Decode(&plan)
		var refused driver.CommandError
		if errors.As(err, &refused) {
			t.Skipf("the server does not explain: %v", err)
		}
		noError(t, err)
		index, _, _ := strings.Cut(name, ":")
		text := plan.String()
		if !strings.Contains(text, index) && !strings.Contains(text, "EXPRESS") || strings.Contains(text, "COLLSCAN") || strings.Contains(text, "Seq Scan") {
			t.Errorf("%s: the plan is %.3000s", name, text)
		}
	}
}

// serverURL is the server of the tests.
func serverURL(t *testing.T) string {
	t.Helper()
	url := os.Getenv(serverVariable)
	if url == "" {
		t.Skipf("%s names no MongoDB to test with", serverVariable)
	}
	return url
}

// database returns the name of a database that is dropped when the test ends.
func database(t *testing.T) string {
	t.Helper()
	url := serverURL(t)
	name := "linker_test_" + strings.ToLower(rand.Text())
	t.Cleanup(func() {
		s := openAt(t, url, name)
		defer func() { noError(t, s.Close()) }()
		// The context of the test has ended. Dropping takes a while where many tests do.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		noError(t, s.Database().Drop(ctx))
	})
	return name
}

func open(t *testing.T, database string) *mongo.Store {
	t.Helper()
	s := openAt(t, serverURL(t), database)
	t.Cleanup(func() { noError(t, s.Close()) })
	return s
}

func openAt(t *testing.T, url, database string) *mongo.Store {
	t.Helper()
	s, err := mongo.Open(mongo.Config{URL: url, Database: database, Log: slog.New(slog.DiscardHandler)})
	noError(t, err)
	if s.Database().Name() != database {
		t.Fatalf("%s must not name a database: the tests make their own", serverVariable)
	}
	return s
}

func row(n int64) mailbox.Row {
	r := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: n}, Record: fmt.Appendf(nil, "record %d", n)}
	r.ID = ident.StreamMessageID(1, "A-1", uint64(n))
	return r
}

func key(r mailbox.Row) mailbox.Key { return mailbox.Key{To: r.To, Pos: r.Pos, ID: r.ID} }

func wantCount(t *testing.T, s *mongo.Store, want int) {
	t.Helper()
	got, err := s.Count(t.Context(), mailbox.Query{To: "A-1"})
	noError(t, err)
	if got != want {
		t.Errorf("%d rows are not proved, want %d", got, want)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
