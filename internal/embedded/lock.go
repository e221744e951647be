package embedded

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockName is the file that carries the lock. It is never removed: a removed
// lock file can be locked by two processes, each holding another inode.
const lockName = "wazzup-relay.lock"

// lock takes the folder for this process. Two servers that store in one folder
// destroy it, and the server itself does not look. The kernel frees the lock
// with the process, so a kill -9 leaves nothing behind that must be cleared.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil { // what is stored is personal
		return nil, fmt.Errorf("%w: folder of EMBEDDED_NATS: %w", ErrConfig, err)
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: lock the folder of EMBEDDED_NATS: %w", ErrConfig, err)
	}
	taken, err := tryLock(file)
	if err == nil && !taken {
		err = fmt.Errorf("%w: EMBEDDED_NATS=%s: give each process a folder of its own, or connect to the one that has it", ErrLocked, dir)
	} else if err != nil {
		err = fmt.Errorf("%w: lock the folder of EMBEDDED_NATS=%s: %w", ErrConfig, dir, err)
	}
	if err != nil {
		_ = file.Close() // nothing was written to it
		return nil, err
	}
	return func() { _ = file.Close() }, nil // closing frees the lock
}
