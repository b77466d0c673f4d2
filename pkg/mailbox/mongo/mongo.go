// Package mongo is the mailbox of a domain in MongoDB: one database, which all
// processors of the domain share.
//
// The database has five collections. mailbox holds the rows, one document each,
// with its target and id as _id: storing a row twice is impossible, with or
// without other indexes. lanes is a journal: each save of a lane is one document,
// numbered by lane, so that a save counts as a whole or not at all, without
// transactions, and only one owner can write the next number (lanes.go);
// lane_parts holds what is too large for one document. announced has a document
// for each user, dead one for each dead letter. The other indexes are made by the first request that reaches a
// server.
//
// Writes are acknowledged by a majority, from its journals; reads see what a
// majority has. Every round trip has a time limit, after which its outcome is
// unknown.
package mongo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	requestTimeout = 2 * time.Second  // for one round trip, with the search for a server
	prepareTimeout = 30 * time.Second // for making the indexes
	maxConnections = 64               // for requests; one beyond them waits
)

// Config says which MongoDB, and which database in it.
type Config struct {
	URL      string // mongodb://… or mongodb+srv://…; it may carry credentials and is never logged
	Database string // if the path of the URL names none
	Log      *slog.Logger
}

// Store is a mailbox.Store in MongoDB.
type Store struct {
	// Static after Open.
	client    *mongo.Client
	rows      *mongo.Collection
	lanes     *mongo.Collection
	parts     *mongo.Collection
	announced *mongo.Collection
	dead      *mongo.Collection
	log       *slog.Logger
	limits    limits

	prepared  atomic.Bool
	preparing chan struct{} // holds a token while the indexes are being made; never closed

	mu    sync.Mutex
	owned map[int]*owned // by lane; guarded by mu
}

var _ mailbox.Store = (*Store)(nil)

// Open returns a store. It waits for no server: that is looked for when it is
// needed, and a method that finds none fails after two seconds. An error means
// that the configuration is wrong; with mongodb+srv also that DNS has no answer.
func Open(cfg Config) (*Store, error) {
	database, err := databaseOf(cfg)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	journal := true
	o := options.Client().ApplyURI(cfg.URL).
		SetAppName("linker").
		SetConnectTimeout(requestTimeout).
		SetServerSelectionTimeout(requestTimeout).
		SetTimeout(requestTimeout).
		SetMaxPoolSize(maxConnections).
		SetReadPreference(readpref.Primary()).
		SetReadConcern(readconcern.Majority()).
		SetWriteConcern(&writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal})
	client, err := mongo.Connect(o)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", errURL) // err may quote the password
	}
	db := client.Database(database)
	cfg.Log.Info("mailbox opened", "database", database)
	return &Store{
		client:    client,
		rows:      db.Collection("mailbox"),
		lanes:     db.Collection("lanes"),
		parts:     db.Collection("lane_parts"),
		announced: db.Collection("announced"),
		dead:      db.Collection("dead"),
		log:       cfg.Log,
		limits:    limits{partBytes: 2 << 20, journalBytes: 4 << 20, journalEntries: 2048},
		preparing: make(chan struct{}, 1),
		owned:     make(map[int]*owned),
	}, nil
}

var errURL = errors.New("the URL of MongoDB is not valid, or its name has no answer from DNS: " +
	"want mongodb://user:password@host:port/database?options, with reserved characters of user and password percent-encoded")

// databaseOf returns the name in the path of the URL, or else the configured one.
func databaseOf(cfg Config) (string, error) {
	_, rest, _ := strings.Cut(cfg.URL, "://")
	rest, _, _ = strings.Cut(rest, "?")
	rest = rest[strings.LastIndex(rest, "@")+1:]
	_, path, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(path)
	if err != nil {
		return "", errURL
	}
	if name == "" {
		name = cfg.Database
	}
	if name == "" || len(name) > 63 || strings.ContainsAny(name, "/\\. \"$*<>:|?\x00") {
		return "", fmt.Errorf("%q is not the name of a database", name)
	}
	return name, nil
}

// Ping says whether a server answers that takes writes.
func (s *Store) Ping(ctx context.Context) error {
	err := limited(ctx, func(ctx context.Context) error { return s.client.Ping(ctx, readpref.Primary()) })
	if err != nil {
		return fmt.Errorf("ping mailbox: %w", err)
	}
	return nil
}

// Close ends the connections.
func (s *Store) Close() error {
	err := limited(context.Background(), s.client.Disconnect)
	if err != nil {
		return fmt.Errorf("close mailbox: %w", err)
	}
	return nil
}

// prepare makes the indexes, once; after an error the next caller tries again.
func (s *Store) prepare(ctx context.Context) error {
	err := ctx.Err()
	if err != nil || s.prepared.Load() {
		return err
	}
	err = limited(ctx, func(ctx context.Context) error {
		select {
		case s.preparing <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return fmt.Errorf("wait for the indexes: %w", err)
	}
	defer func() { <-s.preparing }()
	if s.prepared.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	for collection, models := range map[*mongo.Collection][]mongo.IndexModel{
		s.rows: {
			index("in_order", "to", "pos", "proved", "size"),
			index("by_age", "lane", "stored"),
			index("by_target", "lane", "to"),
			{
				Keys:    bson.D{{Key: "to", Value: 1}, {Key: "pos", Value: 1}},
				Options: options.Index().SetName("proved").SetPartialFilterExpression(bson.D{{Key: "proved", Value: true}}),
			},
		},
		s.parts:     {index("in_order", "lane", "seq", "blob", "part")},
		s.announced: {index("connected", "lane", "connected"), index("in_order", "lane", "pos")},
		s.dead:      {index("by_user", "users", "_id"), index("by_reason", "reason", "_id"), index("by_age", "at")},
	} {
		_, err := collection.Indexes().CreateMany(ctx, models)
		if err != nil {
			return fmt.Errorf("make indexes of %s: %w", collection.Name(), err)
		}
	}
	s.prepared.Store(true)
	return nil
}

func index(name string, fields ...string) mongo.IndexModel {
	keys := make(bson.D, len(fields))
	for i, f := range fields {
		keys[i] = bson.E{Key: f, Value: 1}
	}
	return mongo.IndexModel{Keys: keys, Options: options.Index().SetName(name)}
}

// limited gives run the time of one round trip. If ctx itself has ended, the
// error says so, whatever the driver made of it.
func limited(ctx context.Context, run func(context.Context) error) error {
	inner, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := run(inner)
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// scan calls take for each document of a query, as far as it returns true. Each
// round trip has its own time limit.
func scan(ctx context.Context, c *mongo.Collection, filter bson.D, o *options.FindOptionsBuilder, take func(*mongo.Cursor) (bool, error)) error {
	var cursor *mongo.Cursor
	err := limited(ctx, func(ctx context.Context) error {
		var err error
		cursor, err = c.Find(ctx, filter, o)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		// A cursor that is not read to its end is closed at the server. Where
		// that fails, the server closes it by itself.
		_ = limited(ctx, cursor.Close)
	}()
	for {
		found, err := next(ctx, cursor)
		if err != nil || !found {
			return err
		}
		more, err := take(cursor)
		if err != nil || !more {
			return err
		}
	}
}

// next moves the cursor on, with a round trip if nothing is left of the last one.
func next(ctx context.Context, cursor *mongo.Cursor) (bool, error) {
	if cursor.RemainingBatchLength() > 0 {
		return cursor.Next(ctx), cursor.Err()
	}
	found := false
	err := limited(ctx, func(ctx context.Context) error {
		found = cursor.Next(ctx)
		return cursor.Err()
	})
	return found, err
}
