package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	insertRow = `INSERT INTO rows (target, generation, offset, id, lane, proved, stored, record)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (target, id) DO NOTHING`
	markRow      = `UPDATE rows SET proved = 1 WHERE target = ? AND id = ?`
	deleteRow    = `DELETE FROM rows WHERE target = ? AND id = ?`
	deleteProved = `DELETE FROM rows INDEXED BY rows_proved
		WHERE target = ? AND (generation, offset) < (?, ?) AND proved = 1`
	countRows = `SELECT count(*) FROM rows INDEXED BY rows_in_order
		WHERE target = ? AND (generation, offset) > (?, ?) AND (generation, offset) < (?, ?) AND proved = 0`
	// The last parameter is the highest value of proved that is wanted.
	readRows = `SELECT target, generation, offset, id, lane, proved, stored, record FROM rows INDEXED BY rows_in_order
		WHERE target = ? AND (generation, offset) > (?, ?) AND (generation, offset) < (?, ?) AND proved <= ?
		ORDER BY generation, offset`
	usageRows = `SELECT count(*), coalesce(sum(length(record)), 0) FROM rows INDEXED BY rows_in_order
		WHERE target = ? AND proved = 0`
	expiredRows = `SELECT target, generation, offset, id, lane, proved, stored, record FROM rows INDEXED BY rows_by_age
		WHERE lane = ? AND stored < ? ORDER BY stored LIMIT ?`
	// From each target the index is entered anew behind it, so that rows between
	// two targets are not looked at. The NULL behind the last one ends the search.
	laneTargets = `WITH RECURSIVE found (target) AS (
			SELECT min(target) FROM rows INDEXED BY rows_by_target WHERE lane = ?1 AND target > ?2
			UNION ALL
			SELECT (SELECT min(target) FROM rows INDEXED BY rows_by_target WHERE lane = ?1 AND target > found.target)
			FROM found WHERE found.target IS NOT NULL
			LIMIT ?3
		) SELECT target FROM found WHERE target IS NOT NULL`
)

// Put implements mailbox.Rows.
func (s *Store) Put(ctx context.Context, rows []mailbox.Row) error {
	if len(rows) == 0 {
		return ctx.Err()
	}
	if err := s.room(rows); err != nil {
		return fmt.Errorf("store %d rows: %w", len(rows), err)
	}
	err := s.commit(ctx, func(tx *sql.Tx) error {
		return each(tx, insertRow, rows, func(r mailbox.Row) []any {
			return []any{r.To, r.Pos.Generation, r.Pos.Offset, r.ID[:], r.Lane, r.Proved, r.Stored, r.Record}
		})
	})
	if err != nil {
		return fmt.Errorf("store %d rows: %w", len(rows), err)
	}
	return nil
}

// Read implements mailbox.Rows.
func (s *Store) Read(ctx context.Context, q mailbox.Query) ([]mailbox.Row, bool, error) {
	if q.Limit < 1 {
		return nil, false, fmt.Errorf("read rows of %s: limit %d is below 1", q.To, q.Limit)
	}
	rows, more, err := s.readRows(ctx, q)
	if err != nil {
		return nil, false, fmt.Errorf("read rows of %s: %w", q.To, err)
	}
	return rows, more, nil
}

func (s *Store) readRows(ctx context.Context, q mailbox.Query) ([]mailbox.Row, bool, error) {
	highest := 1
	if q.Unproved {
		highest = 0
	}
	found, err := s.read.QueryContext(ctx, readRows, append(bounds(q), highest)...)
	if err != nil {
		return nil, false, err
	}
	defer found.Close()
	var rows []mailbox.Row
	size := 0
	for found.Next() {
		if len(rows) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			return rows, true, nil
		}
		r, err := scanRow(found)
		if err != nil {
			return nil, false, err
		}
		size += len(r.Record)
		rows = append(rows, r)
	}
	return rows, false, found.Err()
}

// Count implements mailbox.Rows. It reads an index, no records.
func (s *Store) Count(ctx context.Context, q mailbox.Query) (int, error) {
	var n int
	err := s.read.QueryRowContext(ctx, countRows, bounds(q)...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count rows of %s: %w", q.To, err)
	}
	return n, nil
}

// MarkProved implements mailbox.Rows.
func (s *Store) MarkProved(ctx context.Context, keys []mailbox.Key) error {
	err := s.changeRows(ctx, markRow, keys)
	if err != nil {
		return fmt.Errorf("mark %d rows as proved: %w", len(keys), err)
	}
	return nil
}

// Delete implements mailbox.Rows.
func (s *Store) Delete(ctx context.Context, keys []mailbox.Key) error {
	err := s.changeRows(ctx, deleteRow, keys)
	if err != nil {
		return fmt.Errorf("delete %d rows: %w", len(keys), err)
	}
	return nil
}

func (s *Store) changeRows(ctx context.Context, query string, keys []mailbox.Key) error {
	if len(keys) == 0 {
		return ctx.Err()
	}
	return s.commit(ctx, func(tx *sql.Tx) error {
		return each(tx, query, keys, func(k mailbox.Key) []any { return []any{k.To, k.ID[:]} })
	})
}

// DeleteProved implements mailbox.Rows.
func (s *Store) DeleteProved(ctx context.Context, to string, before envelope.Position) error {
	generation, offset := upperBound(before)
	err := s.commit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(deleteProved, to, generation, offset)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete proved rows of %s: %w", to, err)
	}
	return nil
}

// Usage implements mailbox.Rows. It reads an index, no records.
func (s *Store) Usage(ctx context.Context, to string) (mailbox.Usage, error) {
	var u mailbox.Usage
	err := s.read.QueryRowContext(ctx, usageRows, to).Scan(&u.Rows, &u.Bytes)
	if err != nil {
		return mailbox.Usage{}, fmt.Errorf("measure rows of %s: %w", to, err)
	}
	return u, nil
}

// Expired implements mailbox.Rows.
func (s *Store) Expired(ctx context.Context, lane int, before int64, limit int) ([]mailbox.Row, error) {
	if limit < 1 {
		return nil, fmt.Errorf("read expired rows of lane %d: limit %d is below 1", lane, limit)
	}
	rows, err := s.expiredRows(ctx, lane, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read expired rows of lane %d: %w", lane, err)
	}
	return rows, nil
}

func (s *Store) expiredRows(ctx context.Context, lane int, before int64, limit int) ([]mailbox.Row, error) {
	found, err := s.read.QueryContext(ctx, expiredRows, lane, before, limit)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []mailbox.Row
	for found.Next() {
		r, err := scanRow(found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// Targets implements mailbox.Rows. It looks at one entry of an index for each
// target.
func (s *Store) Targets(ctx context.Context, lane int, after string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, fmt.Errorf("list targets of lane %d: limit %d is below 1", lane, limit)
	}
	targets, err := s.targets(ctx, lane, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list targets of lane %d: %w", lane, err)
	}
	return targets, nil
}

func (s *Store) targets(ctx context.Context, lane int, after string, limit int) ([]string, error) {
	found, err := s.read.QueryContext(ctx, laneTargets, lane, after, limit)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var targets []string
	for found.Next() {
		var target string
		err := found.Scan(&target)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target)
	}
	return targets, found.Err()
}

func scanRow(found *sql.Rows) (mailbox.Row, error) {
	var r mailbox.Row
	var id []byte
	err := found.Scan(&r.To, &r.Pos.Generation, &r.Pos.Offset, &id, &r.Lane, &r.Proved, &r.Stored, &r.Record)
	copy(r.ID[:], id)
	return r, err
}

// bounds are the parameters that begin every query over the rows of a target.
func bounds(q mailbox.Query) []any {
	generation, offset := upperBound(q.Before)
	return []any{q.To, q.After.Generation, q.After.Offset, generation, offset}
}

// upperBound turns the zero position into one behind all others.
func upperBound(p envelope.Position) (generation, offset int64) {
	if p == (envelope.Position{}) {
		return math.MaxInt64, math.MaxInt64
	}
	return int64(p.Generation), p.Offset
}

// each runs one statement for every item.
func each[T any](tx *sql.Tx, query string, items []T, parameters func(T) []any) error {
	statement, err := tx.Prepare(query)
	if err != nil {
		return err
	}
	for _, item := range items {
		_, err := statement.Exec(parameters(item)...)
		if err != nil {
			return errors.Join(err, statement.Close())
		}
	}
	return statement.Close()
}
