package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	putLane = `INSERT OR REPLACE INTO lanes (lane, generation, offset) VALUES (?, ?, ?)`
	getLane = `SELECT generation, offset FROM lanes WHERE lane = ?`

	putOwner = `INSERT OR REPLACE INTO owners (lane, token) VALUES (?, ?)`
	getOwner = `SELECT token FROM owners WHERE lane = ?`

	putWindow = `INSERT OR REPLACE INTO windows (lane, user, stream, high, missing, touched)
		VALUES (?, ?, ?, ?, ?, ?)`
	deleteWindow = `DELETE FROM windows WHERE lane = ? AND user = ? AND stream = ?`
	getWindows   = `SELECT user, stream, high, missing, touched FROM windows WHERE lane = ?`

	// The ids of one save are one value: they are forgotten together.
	putIDs    = `INSERT INTO remembered (lane, saved, ids) VALUES (?, ?, ?)`
	deleteIDs = `DELETE FROM remembered WHERE lane = ? AND saved < ?`
	getIDs    = `SELECT ids FROM remembered WHERE lane = ? ORDER BY seq`
)

// SaveLane implements mailbox.Lanes.
func (s *Store) SaveLane(ctx context.Context, lane int, change mailbox.LaneChange) error {
	var taken bool
	err := s.commit(ctx, func(tx *sql.Tx) (err error) {
		// Another process's claim concerns this change alone: nothing of it is
		// written, and the others in the commit are none the worse.
		if taken, err = s.takenFromUs(tx, lane); err != nil || taken {
			return err
		}
		return saveLane(tx, lane, change)
	})
	if err == nil && taken {
		err = mailbox.ErrLaneTaken
	}
	if err != nil {
		return fmt.Errorf("save lane %d: %w", lane, err)
	}
	return nil
}

// own notes that this store is the one that has loaded the lane last.
func (s *Store) own(ctx context.Context, lane int) error {
	var token int64
	err := s.read.QueryRowContext(ctx, getOwner, lane).Scan(&token)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err != nil || token != s.token {
		err = s.commit(ctx, func(tx *sql.Tx) error {
			_, err := tx.Exec(putOwner, lane, s.token)
			return err
		})
	}
	if err == nil {
		s.owned.Store(lane, true)
	}
	return err
}

// takenFromUs says whether another process has loaded the lane since this one did.
func (s *Store) takenFromUs(tx *sql.Tx, lane int) (bool, error) {
	if _, loaded := s.owned.Load(lane); !loaded {
		return false, nil
	}
	var token int64
	err := tx.QueryRow(getOwner, lane).Scan(&token)
	return token != s.token, err
}

func saveLane(tx *sql.Tx, lane int, change mailbox.LaneChange) error {
	_, err := tx.Exec(putLane, lane, change.Position.Generation, change.Position.Offset)
	if err != nil {
		return err
	}
	err = each(tx, deleteWindow, change.Expired, func(k mailbox.WindowKey) []any {
		return []any{lane, string(k.User), int64(k.Stream)}
	})
	if err != nil {
		return err
	}
	keys := make([]mailbox.WindowKey, 0, len(change.Windows))
	for k := range change.Windows {
		keys = append(keys, k)
	}
	err = each(tx, putWindow, keys, func(k mailbox.WindowKey) []any {
		w := change.Windows[k]
		return []any{lane, string(k.User), int64(k.Stream), int64(w.High), appendNumbers(nil, w.Missing), w.Touched}
	})
	if err != nil {
		return err
	}
	_, err = tx.Exec(deleteIDs, lane, change.Now-change.IDsFor)
	if err != nil || len(change.IDs) == 0 {
		return err
	}
	_, err = tx.Exec(putIDs, lane, change.Now, appendIDs(nil, change.IDs))
	return err
}

// LoadLane implements mailbox.Lanes.
func (s *Store) LoadLane(ctx context.Context, lane int) (mailbox.LaneState, bool, error) {
	if err := s.own(ctx, lane); err != nil {
		return mailbox.LaneState{}, false, fmt.Errorf("take lane %d: %w", lane, err)
	}
	state, err := s.loadLane(ctx, lane)
	if errors.Is(err, sql.ErrNoRows) {
		return mailbox.LaneState{}, false, nil
	}
	if err != nil {
		return mailbox.LaneState{}, false, fmt.Errorf("load lane %d: %w", lane, err)
	}
	return state, true, nil
}

// loadLane reads everything in one transaction, so that it is of one save.
func (s *Store) loadLane(ctx context.Context, lane int) (mailbox.LaneState, error) {
	state := mailbox.LaneState{Windows: make(map[mailbox.WindowKey]mailbox.Window)}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return state, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	err = tx.QueryRowContext(ctx, getLane, lane).Scan(&state.Position.Generation, &state.Position.Offset)
	if err != nil {
		return state, err
	}
	err = scan(ctx, tx, getWindows, lane, func(rows *sql.Rows) error {
		var user string
		var stream, high int64
		var missing []byte
		var w mailbox.Window
		err := rows.Scan(&user, &stream, &high, &missing, &w.Touched)
		if err != nil {
			return err
		}
		w.High = uint64(high)
		w.Missing, err = readNumbers(missing)
		state.Windows[mailbox.WindowKey{User: ident.UserID(user), Stream: uint64(stream)}] = w
		return err
	})
	if err != nil {
		return state, fmt.Errorf("windows: %w", err)
	}
	err = scan(ctx, tx, getIDs, lane, func(rows *sql.Rows) error {
		var blob []byte
		err := rows.Scan(&blob)
		if err != nil {
			return err
		}
		ids, err := readIDs(blob)
		state.IDs = append(state.IDs, ids...)
		return err
	})
	if err != nil {
		return state, fmt.Errorf("remembered ids: %w", err)
	}
	return state, nil
}

// scan calls take for every row of a query that has the lane as its parameter.
func scan(ctx context.Context, tx *sql.Tx, query string, lane int, take func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query, lane)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		err := take(rows)
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

// appendNumbers writes ascending numbers as the differences between them.
func appendNumbers(b []byte, numbers []uint64) []byte {
	var last uint64
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n-last)
		last = n
	}
	return b
}

func readNumbers(b []byte) ([]uint64, error) {
	var numbers []uint64
	var last uint64
	r := bin.NewReader(b)
	for r.More() {
		last += r.Uvarint()
		numbers = append(numbers, last)
	}
	return numbers, r.Close()
}

func appendIDs(b []byte, ids []mailbox.RememberedID) []byte {
	for _, id := range ids {
		b = bin.AppendString(b, id.User)
		b = append(b, id.ID[:]...)
	}
	return b
}

func readIDs(b []byte) ([]mailbox.RememberedID, error) {
	var ids []mailbox.RememberedID
	r := bin.NewReader(b)
	for r.More() {
		id := mailbox.RememberedID{User: ident.UserID(r.String())}
		r.Copy(id.ID[:])
		ids = append(ids, id)
	}
	return ids, r.Close()
}
