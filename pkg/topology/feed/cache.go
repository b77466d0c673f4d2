package feed

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/linkerhq/linker/pkg/topology"
)

// maxBody bounds a snapshot; the meta server's own limits keep far below it.
const maxBody = 64 << 20

func readAnswer(response *http.Response) (*answer, error) {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("read the snapshot: it has more than %d bytes", maxBody)
	}
	snapshot, err := topology.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	return &answer{snapshot: snapshot, body: body, etag: response.Header.Get("ETag")}, nil
}

func readCache(path string) (*topology.Snapshot, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the kept snapshot: %w", err)
	}
	snapshot, err := topology.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("read the kept snapshot %s: %w", path, err)
	}
	return snapshot, nil
}

// writeCache replaces the file in one step: whoever reads it finds the old snapshot
// or the new one, after a crash as well. Only the owner may read it.
func writeCache(path string, body []byte) error {
	err := replace(path, body)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func replace(path string, body []byte) error {
	// CreateTemp makes files that only their owner may read and write.
	aside, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, writeErr := aside.Write(body)
	err = errors.Join(writeErr, aside.Sync(), aside.Close())
	if err == nil {
		err = os.Rename(aside.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(aside.Name()))
	}
	return nil
}
