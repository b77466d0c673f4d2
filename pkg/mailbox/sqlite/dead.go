package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	insertDead = `INSERT INTO dead (generation, offset, reason, at, lane, logged, record)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (generation, offset) DO NOTHING`
	insertDeadUser = `INSERT INTO dead_users (user, generation, offset) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	deadColumns    = `SELECT generation, offset, reason, at, lane, logged, record FROM dead`
	getDead        = deadColumns + ` WHERE generation = ? AND offset = ?`
	deadUsers      = `SELECT user FROM dead_users WHERE generation = ? AND offset = ? ORDER BY user`
	deleteDead     = `DELETE FROM dead WHERE generation = ? AND offset = ?`
	deleteDeadUser = `DELETE FROM dead_users WHERE generation = ? AND offset = ?`
	countDead      = `SELECT count(*) FROM dead`
)

// PutDead implements mailbox.DeadLetters.
func (s *Store) PutDead(ctx context.Context, letters []mailbox.DeadLetter) error {
	if len(letters) == 0 {
		return ctx.Err()
	}
	err := s.commit(ctx, func(tx *sql.Tx) error {
		for i := range letters {
			if err := putDead(tx, &letters[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store %d dead letters: %w", len(letters), err)
	}
	return nil
}

func putDead(tx *sql.Tx, l *mailbox.DeadLetter) error {
	done, err := tx.Exec(insertDead, l.Pos.Generation, l.Pos.Offset, l.Reason, l.At, l.Lane, l.Offset, l.Record)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err // it is there
	}
	return each(tx, insertDeadUser, l.Users, func(u ident.UserID) []any { return []any{string(u), l.Pos.Generation, l.Pos.Offset} })
}

// ListDead implements mailbox.DeadLetters.
func (s *Store) ListDead(ctx context.Context, q mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	if q.Limit < 1 {
		return nil, false, fmt.Errorf("list dead letters: limit %d is below 1", q.Limit)
	}
	letters, more, err := s.listDead(ctx, q)
	if err != nil {
		return nil, false, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, more, nil
}

// listDead reads everything in one transaction, so that letters have their users.
func (s *Store) listDead(ctx context.Context, q mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, false, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	letters, more, err := deadPage(ctx, tx, q)
	if err != nil {
		return nil, false, err
	}
	for i := range letters {
		if err := readDeadUsers(ctx, tx, &letters[i]); err != nil {
			return nil, false, err
		}
	}
	return letters, more, nil
}

func deadPage(ctx context.Context, tx *sql.Tx, q mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	where, parameters := deadWhere(q.DeadFilter, q.After)
	found, err := tx.QueryContext(ctx, deadColumns+where+` ORDER BY generation, offset LIMIT ?`, append(parameters, int64(min(q.Limit, math.MaxInt32))+1)...)
	if err != nil {
		return nil, false, err
	}
	defer found.Close()
	var letters []mailbox.DeadLetter
	size := 0
	for found.Next() {
		if len(letters) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			return letters, true, nil
		}
		l, err := scanDead(found)
		if err != nil {
			return nil, false, err
		}
		size += len(l.Record)
		letters = append(letters, l)
	}
	return letters, false, found.Err()
}

// deadWhere is what a filter, and the position to begin behind, are as a condition.
func deadWhere(f mailbox.DeadFilter, after envelope.Position) (where string, parameters []any) {
	var conditions []string
	add := func(condition string, values ...any) {
		conditions, parameters = append(conditions, condition), append(parameters, values...)
	}
	if after != (envelope.Position{}) {
		add(`(generation, offset) > (?, ?)`, after.Generation, after.Offset)
	}
	if f.User != "" {
		add(`(generation, offset) IN (SELECT generation, offset FROM dead_users WHERE user = ?)`, string(f.User))
	}
	if f.Reason != "" {
		add(`reason = ?`, f.Reason)
	}
	if f.Before != 0 {
		add(`at < ?`, f.Before)
	}
	if len(conditions) == 0 {
		return "", nil
	}
	return ` WHERE ` + strings.Join(conditions, ` AND `), parameters
}

// GetDead implements mailbox.DeadLetters.
func (s *Store) GetDead(ctx context.Context, pos envelope.Position) (mailbox.DeadLetter, bool, error) {
	l, err := s.getDead(ctx, pos)
	if errors.Is(err, sql.ErrNoRows) {
		return mailbox.DeadLetter{}, false, nil
	}
	if err != nil {
		return mailbox.DeadLetter{}, false, fmt.Errorf("read a dead letter: %w", err)
	}
	return l, true, nil
}

func (s *Store) getDead(ctx context.Context, pos envelope.Position) (mailbox.DeadLetter, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return mailbox.DeadLetter{}, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	l, err := scanDead(tx.QueryRowContext(ctx, getDead, pos.Generation, pos.Offset))
	if err != nil {
		return l, err
	}
	return l, readDeadUsers(ctx, tx, &l)
}

func scanDead(row interface{ Scan(...any) error }) (mailbox.DeadLetter, error) {
	var l mailbox.DeadLetter
	err := row.Scan(&l.Pos.Generation, &l.Pos.Offset, &l.Reason, &l.At, &l.Lane, &l.Offset, &l.Record)
	return l, err
}

func readDeadUsers(ctx context.Context, tx *sql.Tx, l *mailbox.DeadLetter) error {
	found, err := tx.QueryContext(ctx, deadUsers, l.Pos.Generation, l.Pos.Offset)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var user string
		if err := found.Scan(&user); err != nil {
			return err
		}
		l.Users = append(l.Users, ident.UserID(user))
	}
	return found.Err()
}

// DeleteDead implements mailbox.DeadLetters.
func (s *Store) DeleteDead(ctx context.Context, positions []envelope.Position) (int, error) {
	if len(positions) == 0 {
		return 0, ctx.Err()
	}
	n := 0
	err := s.commit(ctx, func(tx *sql.Tx) (err error) {
		n, err = deleteDeadAt(tx, positions)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete %d dead letters: %w", len(positions), err)
	}
	return n, nil
}

func deleteDeadAt(tx *sql.Tx, positions []envelope.Position) (int, error) {
	n := int64(0)
	for _, pos := range positions {
		done, err := tx.Exec(deleteDead, pos.Generation, pos.Offset)
		if err != nil {
			return 0, err
		}
		gone, err := done.RowsAffected()
		if err != nil {
			return 0, err
		}
		if _, err := tx.Exec(deleteDeadUser, pos.Generation, pos.Offset); err != nil {
			return 0, err
		}
		n += gone
	}
	return int(n), nil
}

// PurgeDead implements mailbox.DeadLetters.
func (s *Store) PurgeDead(ctx context.Context, filter mailbox.DeadFilter, limit int) (int, error) {
	if limit < 1 {
		return 0, fmt.Errorf("purge dead letters: limit %d is below 1", limit)
	}
	n := 0
	err := s.commit(ctx, func(tx *sql.Tx) error {
		positions, err := purged(tx, filter, limit)
		if err != nil {
			return err
		}
		n, err = deleteDeadAt(tx, positions)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("purge dead letters: %w", err)
	}
	return n, nil
}

func purged(tx *sql.Tx, filter mailbox.DeadFilter, limit int) ([]envelope.Position, error) {
	where, parameters := deadWhere(filter, envelope.Position{})
	found, err := tx.Query(`SELECT generation, offset FROM dead`+where+` LIMIT ?`, append(parameters, int64(limit))...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var positions []envelope.Position
	for found.Next() {
		var pos envelope.Position
		if err := found.Scan(&pos.Generation, &pos.Offset); err != nil {
			return nil, err
		}
		positions = append(positions, pos)
	}
	return positions, found.Err()
}

// CountDead implements mailbox.DeadLetters.
func (s *Store) CountDead(ctx context.Context) (int, error) {
	var n int
	err := s.read.QueryRowContext(ctx, countDead).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, nil
}
