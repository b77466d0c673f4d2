package stack_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

func TestEveryDomainHasACertificateForItsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := metaFile(t, describe("north", "south"))
	at := func(name string) string { return filepath.Join(dir, "links", name) }
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(at(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	begin := func() {
		t.Helper()
		s := open(t, stack.Config{Data: dir, Meta: file})
		s.Close()
	}
	begin()
	for _, name := range []string{"north", "south"} {
		pair, err := tls.LoadX509KeyPair(at(name+".crt"), at(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(read("root_ca.crt")))
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{
				DNSName: name, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: time.Now().AddDate(9, 11, 0),
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, name := range []string{"root_ca.key", "north.key", "south.key"} {
		info, err := os.Stat(at(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}

	// What stands is used on, also when a domain is added.
	north, ca := read("north.crt"), read("root_ca.crt")
	write(t, file, []byte(describe("north", "south", "east")))
	begin()
	if read("north.crt") != north || read("root_ca.crt") != ca || read("east.crt") == "" {
		t.Error("certificates were made anew")
	}

	// What does not stand is made anew: here a pair that is torn, then all of them with their authority.
	write(t, at("north.key"), []byte(read("south.key")))
	begin()
	torn := read("north.crt")
	if torn == north || read("root_ca.crt") != ca {
		t.Error("a torn pair was kept")
	}
	for _, name := range []string{"root_ca.crt", "root_ca.key"} {
		if err := os.Remove(at(name)); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	if read("north.crt") == torn || read("root_ca.crt") == ca {
		t.Error("certificates of an earlier authority were kept")
	}

	write(t, at("root_ca.key"), []byte("not a key"))
	_, err := stack.New(stack.Config{Data: dir, Meta: file, Host: "127.0.0.1", Log: logTo(t)})
	if err == nil || !strings.Contains(err.Error(), "root_ca.key") || !strings.Contains(err.Error(), "remove both") {
		t.Errorf("got %v", err)
	}
}
