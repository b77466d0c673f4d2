package mongo

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

// maxUpserts bounds how often a first upsert is tried again: of two at the same
// time, servers let one fail with a duplicate key.
const maxUpserts = 4

// announcedDocument is a user in the collection announced.
type announcedDocument struct {
	Key       string `bson:"_id"` // "<lane>/<user>"
	Lane      int    `bson:"lane"`
	User      string `bson:"user"`
	Connected bool   `bson:"connected"`
	N         int64  `bson:"n"` // the same bits
	Pos       string `bson:"pos"`
}

func announcedKey(lane int, user ident.UserID) string {
	return strconv.Itoa(lane) + "/" + string(user)
}

func (d *announcedDocument) announced() (mailbox.Announced, error) {
	pos, err := decodePosition(d.Pos)
	return mailbox.Announced{User: ident.UserID(d.User), Connected: d.Connected, N: uint64(d.N), Pos: pos}, err
}

// PutAnnounced implements mailbox.Presence.
func (s *Store) PutAnnounced(ctx context.Context, lane int, a mailbox.Announced) error {
	d := announcedDocument{
		Key: announcedKey(lane, a.User), Lane: lane, User: string(a.User), Connected: a.Connected,
		N: int64(a.N), Pos: encodePosition(a.Pos),
	}
	err := s.request(ctx, func(ctx context.Context) error { return s.replace(ctx, &d) })
	if err != nil {
		return fmt.Errorf("store what was announced of %s: %w", a.User, err)
	}
	return nil
}

// replace matches no document that has a higher position. The upsert then finds
// the key taken, as it does when another one was quicker.
func (s *Store) replace(ctx context.Context, d *announcedDocument) error {
	older := bson.D{{Key: "_id", Value: d.Key}, {Key: "pos", Value: bson.D{{Key: "$lte", Value: d.Pos}}}}
	newer := bson.D{{Key: "_id", Value: d.Key}, {Key: "pos", Value: bson.D{{Key: "$gt", Value: d.Pos}}}}
	var err error
	for range maxUpserts {
		_, err = s.announced.ReplaceOne(ctx, older, d, options.Replace().SetUpsert(true))
		if !mongo.IsDuplicateKeyError(err) {
			return err
		}
		n, failed := s.announced.CountDocuments(ctx, newer)
		if failed != nil || n > 0 {
			return failed
		}
	}
	return err
}

// GetAnnounced implements mailbox.Presence.
func (s *Store) GetAnnounced(ctx context.Context, lane int, user ident.UserID) (mailbox.Announced, bool, error) {
	var d announcedDocument
	err := s.request(ctx, func(ctx context.Context) error {
		return s.announced.FindOne(ctx, bson.D{{Key: "_id", Value: announcedKey(lane, user)}}).Decode(&d)
	})
	if errors.Is(err, mongo.ErrNoDocuments) {
		return mailbox.Announced{}, false, nil
	}
	var a mailbox.Announced
	if err == nil {
		a, err = d.announced()
	}
	if err != nil {
		return mailbox.Announced{}, false, fmt.Errorf("read what was announced of %s: %w", user, err)
	}
	return a, true, nil
}

// ListAnnounced implements mailbox.Presence.
func (s *Store) ListAnnounced(ctx context.Context, lane int, since envelope.Position) ([]mailbox.Announced, error) {
	list, err := s.listAnnounced(ctx, lane, since)
	if err != nil {
		return nil, fmt.Errorf("list what was announced in lane %d: %w", lane, err)
	}
	return list, nil
}

func (s *Store) listAnnounced(ctx context.Context, lane int, since envelope.Position) ([]mailbox.Announced, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	filter := bson.D{{Key: "lane", Value: lane}, {Key: "$or", Value: bson.A{
		bson.D{{Key: "connected", Value: true}},
		bson.D{{Key: "pos", Value: bson.D{{Key: "$gte", Value: encodePosition(since)}}}},
	}}}
	var list []mailbox.Announced
	err = scan(ctx, s.announced, filter, options.Find(), func(c *mongo.Cursor) (bool, error) {
		var d announcedDocument
		err := c.Decode(&d)
		if err != nil {
			return false, err
		}
		a, err := d.announced()
		list = append(list, a)
		return true, err
	})
	return list, err
}
