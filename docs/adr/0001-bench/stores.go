package main

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/bbolt"
	_ "modernc.org/sqlite"
)

// A row waits for one target. The id is unique per target, the offset orders.
type row struct {
	to     string
	offset uint64
	id     [16]byte
	record []byte
}

// A store keeps rows. Only one goroutine at a time calls put and remove; what
// they have returned is on disk if sync is set.
type store interface {
	put(rows []row, sync bool) error
	remove(rows []row) error
	read(to string, limit int) (int, error)  // reads records, in order
	count(to string, limit int) (int, error) // looks at keys only
	close() error
}

func rowKey(to string, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(to), 0), offset)
}

func idKey(to string, id [16]byte) []byte { return append(append([]byte(to), 0), id[:]...) }

type boltStore struct{ db *bbolt.DB }

func openBolt(dir string) (store, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return boltStore{db}, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte("rows"))
		_, err2 := tx.CreateBucketIfNotExists([]byte("ids"))
		return errors.Join(err, err2)
	})
}

func (s boltStore) put(rows []row, sync bool) error {
	s.db.NoSync = !sync
	return s.db.Update(func(tx *bbolt.Tx) error {
		data, ids := tx.Bucket([]byte("rows")), tx.Bucket([]byte("ids"))
		for _, r := range rows {
			if ids.Get(idKey(r.to, r.id)) != nil {
				continue
			}
			key := rowKey(r.to, r.offset)
			if err := errors.Join(data.Put(key, r.record), ids.Put(idKey(r.to, r.id), key)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s boltStore) remove(rows []row) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		data, ids := tx.Bucket([]byte("rows")), tx.Bucket([]byte("ids"))
		for _, r := range rows {
			if err := errors.Join(data.Delete(rowKey(r.to, r.offset)), ids.Delete(idKey(r.to, r.id))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s boltStore) read(to string, limit int) (int, error) {
	n, size := 0, 0
	return n, s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte("rows")).Cursor()
		for k, v := c.Seek(rowKey(to, 0)); n < limit && bytes.HasPrefix(k, append([]byte(to), 0)); k, v = c.Next() {
			size += len(bytes.Clone(v))
			n++
		}
		return nil
	})
}

func (s boltStore) count(to string, limit int) (n int, err error) {
	return n, s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte("rows")).Cursor()
		for k, _ := c.Seek(rowKey(to, 0)); n < limit && bytes.HasPrefix(k, append([]byte(to), 0)); k, _ = c.Next() {
			n++
		}
		return nil
	})
}

func (s boltStore) close() error { return s.db.Close() }

type pebbleStore struct{ db *pebble.DB }

func openPebble(dir string) (store, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 16 << 20, Logger: silent{},
	})
	return pebbleStore{db}, err
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

func (s pebbleStore) put(rows []row, sync bool) error {
	b := s.db.NewBatch()
	for _, r := range rows {
		_, closer, err := s.db.Get(append([]byte{'i'}, idKey(r.to, r.id)...))
		if err == nil {
			closer.Close()
			continue
		}
		key := append([]byte{'r'}, rowKey(r.to, r.offset)...)
		if err := errors.Join(b.Set(key, r.record, nil), b.Set(append([]byte{'i'}, idKey(r.to, r.id)...), key, nil)); err != nil {
			return err
		}
	}
	return b.Commit(&pebble.WriteOptions{Sync: sync})
}

func (s pebbleStore) remove(rows []row) error {
	b := s.db.NewBatch()
	for _, r := range rows {
		err := b.Delete(append([]byte{'r'}, rowKey(r.to, r.offset)...), nil)
		if err = errors.Join(err, b.Delete(append([]byte{'i'}, idKey(r.to, r.id)...), nil)); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (s pebbleStore) walk(prefix byte, to string, limit int, record bool) (int, error) {
	lower := append(append([]byte{prefix}, to...), 0)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: append(append([]byte{prefix}, to...), 1)})
	if err != nil {
		return 0, err
	}
	n := 0
	for ok := it.First(); ok && n < limit; ok = it.Next() {
		if record {
			_ = bytes.Clone(it.Value())
		}
		n++
	}
	return n, it.Close()
}

func (s pebbleStore) read(to string, limit int) (int, error)  { return s.walk('r', to, limit, true) }
func (s pebbleStore) count(to string, limit int) (int, error) { return s.walk('i', to, limit, false) }
func (s pebbleStore) close() error                            { return s.db.Close() }

type sqliteStore struct{ write, reads *sql.DB }

func openSQLite(dir string) (store, error) {
	url := "file:" + filepath.Join(dir, "db") + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-16384)&_pragma=busy_timeout(5000)"
	write, err := sql.Open("sqlite", url)
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	_, err = write.Exec(`CREATE TABLE IF NOT EXISTS rows (target TEXT, offset INT, id BLOB, record BLOB, PRIMARY KEY (target, offset));
		CREATE UNIQUE INDEX IF NOT EXISTS ids ON rows (target, id)`)
	reads, err2 := sql.Open("sqlite", url)
	return sqliteStore{write, reads}, errors.Join(err, err2)
}

func (s sqliteStore) batch(sync bool, query string, rows []row, args func(row) []any) error {
	if !sync {
		if _, err := s.write.Exec("PRAGMA synchronous=OFF"); err != nil {
			return err
		}
		defer s.write.Exec("PRAGMA synchronous=FULL")
	}
	tx, err := s.write.Begin()
	if err != nil {
		return err
	}
	stmt, err := tx.Prepare(query)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := stmt.Exec(args(r)...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s sqliteStore) put(rows []row, sync bool) error {
	return s.batch(sync, "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)", rows, func(r row) []any {
		return []any{r.to, int64(r.offset), r.id[:], r.record}
	})
}

func (s sqliteStore) remove(rows []row) error {
	return s.batch(true, "DELETE FROM rows WHERE target = ? AND offset = ?", rows, func(r row) []any {
		return []any{r.to, int64(r.offset)}
	})
}

func (s sqliteStore) read(to string, limit int) (int, error) {
	rows, err := s.reads.Query("SELECT offset, id, record FROM rows WHERE target = ? ORDER BY offset LIMIT ?", to, limit)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var offset int64
		var id, record []byte
		if err := rows.Scan(&offset, &id, &record); err != nil {
			return 0, err
		}
	}
	return n, rows.Err()
}

func (s sqliteStore) count(to string, limit int) (n int, err error) {
	err = s.reads.QueryRow("SELECT count(*) FROM (SELECT 1 FROM rows INDEXED BY ids WHERE target = ? LIMIT ?)", to, limit).Scan(&n)
	return n, err
}

func (s sqliteStore) close() error { return errors.Join(s.write.Close(), s.reads.Close()) }
