package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/topology"
)

// writeNetwork finds the file that describes the network, or writes one: a ring of
// as many domains as were asked for, with the ports of this run where they are
// fixed.
func (s *Stack) writeNetwork() error {
	s.meta = s.cfg.Meta
	if s.meta != "" {
		return nil
	}
	s.meta = filepath.Join(s.cfg.Data, "network.yaml")
	wanted := s.ring(max(s.cfg.Domains, 1))
	file, err := os.OpenFile(s.meta, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return s.enlargeNetwork(wanted)
	}
	if err != nil {
		return fmt.Errorf("write the description of the network: %w", err)
	}
	_, err = file.Write(wanted)
	return errors.Join(err, file.Close())
}

// enlargeNetwork replaces a file that an earlier start has written for fewer domains, if
// more were asked for and nobody has edited it. What waits in the domains that were there
// goes where it belongs now.
func (s *Stack) enlargeNetwork(wanted []byte) error {
	found, err := os.ReadFile(s.meta)
	if err != nil {
		return fmt.Errorf("read the description of the network: %w", err)
	}
	for n := 1; n < s.cfg.Domains; n++ {
		if bytes.Equal(found, s.ring(n)) {
			return replaceFile(s.meta, wanted, 0o640)
		}
	}
	return nil // the operator's
}

// ring describes a ring of so many domains, with the ports of this run where they are fixed.
func (s *Stack) ring(domains int) []byte {
	standard := DefaultPorts()
	var ports []metaserver.Ports
	for n := range domains {
		ports = append(ports, metaserver.Ports{
			Link:      portOr(s.cfg.Ports.Link, standard.Link) + portStep*n,
			Websocket: portOr(s.cfg.Ports.Websocket, standard.Websocket) + portStep*n,
		})
	}
	return metaserver.RingFile(ports)
}

// checkNetwork compares the number of domains that the file describes with what can
// be run and with what was asked for.
func (s *Stack) checkNetwork(described int) error {
	asked := s.cfg.Domains
	switch {
	case described > maxDomains:
		return fmt.Errorf("network file %s: it describes %d domains, expected at most %d in one process", s.meta, described, maxDomains)
	case asked == 0 || asked == described:
		return nil
	case s.cfg.Meta != "":
		return fmt.Errorf("--domains %d: the network file %s describes %s; leave --domains out, or change the file", asked, s.meta, count(described))
	default:
		return fmt.Errorf("--domains %d: the network file %s describes %s; leave --domains out to run these, "+
			"or begin anew: remove the file, or name another directory with --data", asked, s.meta, count(described))
	}
}

func count(domains int) string {
	if domains == 1 {
		return "1 domain"
	}
	return strconv.Itoa(domains) + " domains"
}

// correctPorts writes the ports at which the domains really listen into a file of
// several domains that an earlier start has written, as long as nobody has edited
// it: with ports that are picked by chance they are others each time, and the
// domains find each other by them.
func (s *Stack) correctPorts(network topology.Network) error {
	if s.cfg.Meta != "" || len(network.Domains) < 2 {
		return nil
	}
	found, err := os.ReadFile(s.meta)
	if err != nil {
		return fmt.Errorf("read the description of the network: %w", err)
	}
	var written, actual []metaserver.Ports
	running := s.running()
	for i, d := range network.Domains {
		written = append(written, metaserver.Ports{Link: portIn(d.LinkURLs()), Websocket: portIn(d.ClientURLs())})
		c := running[i].connector
		actual = append(actual, metaserver.Ports{Link: portOf(c.LinkAddr()), Websocket: portOf(c.Addr())})
	}
	wanted := metaserver.RingFile(actual)
	if !bytes.Equal(found, metaserver.RingFile(written)) || bytes.Equal(found, wanted) {
		return nil
	}
	if err := replaceFile(s.meta, wanted, 0o640); err != nil {
		return fmt.Errorf("write the description of the network: %w", err)
	}
	s.metaserv.Reread()
	return nil
}

// portIn is the port of the first URL, 0 if there is none.
func portIn(urls []string) int {
	if len(urls) == 0 {
		return 0
	}
	u, err := url.Parse(urls[0])
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return 0
	}
	return port
}

// replaceFile writes a file so that there is always a whole one.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(next, mode); err != nil { // it may have been left by a crash
		return err
	}
	return os.Rename(next, path)
}
