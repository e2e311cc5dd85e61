// files ROOT: how Go reads files and directories.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"

	"conformance/say"
)

func sum(data []byte) string { return fmt.Sprintf("%d bytes, %x", len(data), sha256.Sum256(data))[:30] }

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return failure(err)
	}
	return sum(data)
}

// The whole error: its text names the call and the path.
func failure(err error) string {
	if err == nil {
		return "OK"
	}
	return err.Error()
}

func describe(info fs.FileInfo, err error) string {
	if err != nil {
		return failure(err)
	}
	status := info.Sys().(*syscall.Stat_t)
	size := info.Size()
	if info.IsDir() {
		size = 0
	}
	return fmt.Sprintf("%s %s %d %d:%d %d %s", info.Name(), info.Mode(), size, status.Uid, status.Gid,
		status.Nlink, info.ModTime().UTC().Format("2006-01-02T15:04:05.999999999"))
}

func directories(root string) {
	fmt.Println("# os.ReadDir")
	for _, name := range []string{"a", "links", "special", "nothing", "a/small.txt"} {
		entries, err := os.ReadDir(filepath.Join(root, name))
		fmt.Println(name, len(entries), failure(err))
		for _, entry := range entries {
			fmt.Println(" ", entry, describe(entry.Info()))
		}
	}
	directory, err := os.Open(filepath.Join(root, "many"))
	say.Need("open many", err)
	var names []string
	for {
		some, err := directory.Readdirnames(100)
		names = append(names, some...)
		if err == io.EOF {
			break
		}
		say.Need("Readdirnames", err)
	}
	sort.Strings(names)
	fmt.Println("in hundreds:", len(names), sum([]byte(strings.Join(names, "\n"))))

	count, digest := 0, sha256.New()
	err = filepath.Walk(root, func(path string, info fs.FileInfo, err error) error {
		if err == nil && info.Name() == "longest" {
			return filepath.SkipDir
		}
		count++
		fmt.Fprintln(digest, path, describe(info, err))
		return nil
	})
	fmt.Printf("filepath.Walk: %d, %x, %s\n", count, digest.Sum(nil)[:8], failure(err))
	files := 0
	err = fs.WalkDir(os.DirFS(filepath.Join(root, "text")), ".", func(path string, entry fs.DirEntry, err error) error {
		if entry.Type().IsRegular() {
			files++
		}
		return err
	})
	fmt.Println("fs.WalkDir:", files, failure(err))
	found, err := filepath.Glob(filepath.Join(root, "text/*/1?.txt"))
	fmt.Println("Glob:", found, failure(err))
}

func files(root string) {
	fmt.Println("# files")
	for _, name := range []string{"a/small.txt", "a/empty", "a/big.bin", "links/chain-1", "links/loop-1", "a", "links/volume",
		"names/\xff\xfe not UTF-8", "nothing"} {
		fmt.Printf("%q: %s\n", name, read(filepath.Join(root, name)))
		fmt.Println("  ", describe(os.Stat(filepath.Join(root, name))))
		fmt.Println("  ", describe(os.Lstat(filepath.Join(root, name))))
	}
	for _, name := range []string{"links/chain-1", "links/forty/5", "links/loop-1", "links/dangling"} {
		path, err := filepath.EvalSymlinks(filepath.Join(root, name))
		fmt.Println("EvalSymlinks", name, path, failure(err))
		path, err = os.Readlink(filepath.Join(root, name))
		fmt.Println("Readlink", name, path, failure(err))
	}
	file, err := os.Open(filepath.Join(root, "a/big.bin"))
	say.Need("open", err)
	defer file.Close()
	part := make([]byte, 5000)
	read, err := file.ReadAt(part, 4_000_000)
	fmt.Println("ReadAt", read, sum(part), failure(err))
	read, err = file.ReadAt(part, 5*1024*1024)
	fmt.Println("ReadAt the end", read, failure(err))
	info, _ := file.Stat()
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	say.Need("mmap", err)
	fmt.Println("mapped", sum(mapped))
	// To a file io.Copy takes copy_file_range or sendfile, to a socket sendfile.
	copied, err := os.CreateTemp("", "conformance-files-")
	say.Need("CreateTemp", err)
	defer os.Remove(copied.Name())
	size, err := io.Copy(copied, file)
	fmt.Println("copied", size, failure(err))
	data, _ := os.ReadFile(copied.Name())
	fmt.Println("the copy", sum(data))
	scanner, lines := bufio.NewScanner(must(os.Open(filepath.Join(root, "text/2/37.txt")))), 0
	for scanner.Scan() {
		lines++
	}
	fmt.Println("lines", lines)
	unzipped, err := gzip.NewReader(must(os.Open(filepath.Join(root, "a/compressed.gz"))))
	say.Need("gzip", err)
	data, err = io.ReadAll(unzipped)
	fmt.Println("gzip", sum(data), failure(err))
	archive, err := zip.OpenReader(filepath.Join(root, "a/archive.zip"))
	say.Need("zip", err)
	fmt.Println("zip", len(archive.File))
}

func must(file *os.File, err error) *os.File {
	say.Need("open", err)
	return file
}

func served(root string) {
	fmt.Println("# served over HTTP")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	say.Need("listen", err)
	go http.Serve(listener, http.FileServer(http.Dir(root)))
	for _, path := range []string{"/a/big.bin", "/a/small.txt", "/links/relative", "/nothing", "/text/1/"} {
		answer, err := http.Get("http://" + listener.Addr().String() + path)
		say.Need("get", err)
		data, err := io.ReadAll(answer.Body)
		fmt.Println(path, answer.StatusCode, answer.Header.Get("Last-Modified"), sum(data), failure(err))
	}
}

func elsewhere(root string) {
	fmt.Println("# working directory and roots")
	say.Need("chdir", os.Chdir(filepath.Join(root, "links/absolute-directory")))
	here, err := os.Getwd()
	fmt.Println(here, failure(err), read("c/deep.txt"), read("../small.txt"))
	shell := exec.Command("/bin/sh", "-c", "pwd; cat c/deep.txt; cat <&3 | wc -c")
	shell.Dir = filepath.Join(root, "a/b")
	shell.ExtraFiles = []*os.File{must(os.Open("../odd"))}
	output, err := shell.CombinedOutput()
	fmt.Printf("a child: %q %s\n", output, failure(err))
	inside, err := os.OpenRoot(filepath.Join(root, "links"))
	say.Need("OpenRoot", err)
	for _, name := range []string{"parent", "relative", "absolute", "self", "forty/44", "../a/small.txt", "nothing"} {
		file, err := inside.Open(name)
		fmt.Println("in a root", name, failure(err))
		if err == nil {
			file.Close()
		}
	}
}

func together(root string) {
	var group sync.WaitGroup
	results := make([]string, 40)
	for i := range results {
		group.Add(1)
		go func() {
			defer group.Done()
			path := filepath.Join(root, fmt.Sprintf("text/%d/%d.txt", i%5, i))
			data, err := os.ReadFile(path)
			info, also := os.Stat(path)
			if err != nil || also != nil || int64(len(data)) != info.Size() || !bytes.Contains(data, []byte("line 59")) {
				results[i] = failure(errors.Join(err, also))
			} else {
				results[i] = sum(data)
			}
		}()
	}
	group.Wait()
	fmt.Println("together:", sum([]byte(strings.Join(results, "\n"))))
}

func main() {
	say.Limit()
	root := os.Args[1]
	directories(root)
	files(root)
	served(root)
	elsewhere(root)
	together(root)
}
