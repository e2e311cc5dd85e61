// filechanges DIRECTORY: how Go makes, writes, renames and removes files and directories.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"conformance/say"
)

func outcome(what string, err error) {
	if err == nil {
		fmt.Println(what, "OK")
	} else {
		fmt.Println(what, err)
	}
}

func tree(directory string) {
	filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		say.Need("walk", err)
		info, err := entry.Info()
		say.Need("info", err)
		size := info.Size()
		if info.IsDir() {
			size = 0
		}
		fmt.Println(" ", strings.TrimPrefix(path, directory), info.Mode(), size)
		return nil
	})
}

func main() {
	say.Limit()
	directory := os.Args[1]
	say.Need("chdir", os.Chdir(directory))
	syscall.Umask(022)
	outcome("WriteFile", os.WriteFile("file", []byte("contents\n"), 0640))
	outcome("shorter", os.WriteFile("file", []byte("less\n"), 0600))
	outcome("MkdirAll", os.MkdirAll("one/two/three", 0750))
	outcome("again", os.MkdirAll("one/two/three", 0700))
	outcome("over a file", os.MkdirAll("file/x", 0700))
	outcome("Mkdir", os.Mkdir("one", 0700))
	outcome("Symlink", os.Symlink("../file", "one/link"))
	outcome("Link", os.Link("file", "one/hard"))
	outcome("Rename", os.Rename("one/two", "moved"))
	outcome("over a full directory", os.Rename("moved", "one"))
	outcome("Chmod", os.Chmod("file", 0604|os.ModeSetuid))
	outcome("Chown", os.Lchown("one/link", 12, 34))
	outcome("Chtimes", os.Chtimes("file", time.Unix(5, 6), time.Unix(7, 8)))
	info, err := os.Stat("file")
	say.Need("stat", err)
	fmt.Println(info.Mode(), info.Size(), info.ModTime().UnixNano())
	outcome("Truncate", os.Truncate("file", 3))

	// The way that careful programs save a file.
	temporary, err := os.CreateTemp(".", ".saved-*")
	say.Need("CreateTemp", err)
	writer := bufio.NewWriter(temporary)
	for i := range 10000 {
		fmt.Fprintf(writer, "line %d\n", i)
	}
	outcome("Flush", writer.Flush())
	outcome("Sync", temporary.Sync())
	outcome("Close", temporary.Close())
	outcome("Rename over", os.Rename(temporary.Name(), "file"))
	data, err := os.ReadFile("file")
	fmt.Println(len(data), strings.HasSuffix(string(data), "line 9999\n"), err)

	log, err := os.OpenFile("log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0644)
	say.Need("log", err)
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 20 {
				log.WriteString("one line\n")
			}
		}()
	}
	group.Wait()
	log.Close()
	data, _ = os.ReadFile("log")
	fmt.Println("log", len(data), strings.Count(string(data), "one line\n"))

	from, err := os.Open("/srv/data/a/big.bin")
	say.Need("open", err)
	to, err := os.Create("copy")
	say.Need("create", err)
	size, err := io.Copy(to, from)
	fmt.Println("copied", size, err)
	to.Close()
	outcome("CopyFS", os.CopyFS("text", os.DirFS("/srv/data/text/1")))
	for _, name := range []string{"a", "b", "c"} {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range 20 {
				say.Need("WriteFile", os.WriteFile(fmt.Sprintf("%s-%d", name, i), []byte(name), 0644))
			}
		}()
	}
	group.Wait()
	tree(directory)
	exclusive, err := os.OpenFile("file", os.O_CREATE|os.O_EXCL, 0600)
	fmt.Println("exclusive", exclusive == nil, errors.Is(err, fs.ErrExist))
	outcome("Remove a full directory", os.Remove("one"))
	outcome("Remove", os.Remove("copy"))
	outcome("RemoveAll", os.RemoveAll("text"))
	outcome("RemoveAll", os.RemoveAll("one"))
	outcome("Remove nothing", os.Remove("one"))
	inside, err := os.OpenRoot("moved")
	say.Need("OpenRoot", err)
	file, err := inside.Create("three/inside")
	outcome("Create in a root", err)
	file.Close()
	_, err = inside.Create("../outside")
	outcome("outside of it", err)
	outcome("Mkdir in a root", inside.Mkdir("made", 0711))
	outcome("Remove in a root", inside.Remove("three/inside"))
	tree(directory)
}
