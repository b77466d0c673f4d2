package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	putAnnounced = `INSERT INTO announced (lane, user, connected, n, generation, offset)
		VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (lane, user) DO UPDATE
		SET connected = excluded.connected, n = excluded.n, generation = excluded.generation, offset = excluded.offset
		WHERE (excluded.generation, excluded.offset) >= (announced.generation, announced.offset)`
	getAnnounced  = `SELECT user, connected, n, generation, offset FROM announced WHERE lane = ? AND user = ?`
	listAnnounced = `SELECT user, connected, n, generation, offset FROM announced
		WHERE lane = ? AND (connected = 1 OR (generation, offset) >= (?, ?))`
)

// PutAnnounced implements mailbox.Presence.
func (s *Store) PutAnnounced(ctx context.Context, lane int, a mailbox.Announced) error {
	err := s.commit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(putAnnounced, lane, string(a.User), a.Connected, int64(a.N), a.Pos.Generation, a.Pos.Offset)
		return err
	})
	if err != nil {
		return fmt.Errorf("store what was announced of %s: %w", a.User, err)
	}
	return nil
}

// GetAnnounced implements mailbox.Presence.
func (s *Store) GetAnnounced(ctx context.Context, lane int, user ident.UserID) (mailbox.Announced, bool, error) {
	a, err := scanAnnounced(s.read.QueryRowContext(ctx, getAnnounced, lane, string(user)))
	if errors.Is(err, sql.ErrNoRows) {
		return mailbox.Announced{}, false, nil
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
	rows, err := s.read.QueryContext(ctx, listAnnounced, lane, since.Generation, since.Offset)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []mailbox.Announced
	for rows.Next() {
		a, err := scanAnnounced(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

func scanAnnounced(row interface{ Scan(...any) error }) (mailbox.Announced, error) {
	var a mailbox.Announced
	var user string
	var n int64
	err := row.Scan(&user, &a.Connected, &n, &a.Pos.Generation, &a.Pos.Offset)
	a.User, a.N = ident.UserID(user), uint64(n)
	return a, err
}
