// bulk ADDRESS BYTES DIGEST: downloads and uploads as many bytes, checks digests, then both at once.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"conformance/say"
)

func download(address string, size int64) (int64, string, []byte) {
	connection, err := net.Dial("tcp", address)
	say.Need("dial", err)
	defer connection.Close()
	fmt.Fprintf(connection, "get %d\n", size)
	digest := sha256.New()
	keep := make([]byte, 1<<20-7)
	_, err = io.ReadFull(connection, keep)
	say.Need("read", err)
	digest.Write(keep)
	count, err := io.Copy(digest, connection)
	say.Need("copy", err)
	return count + int64(len(keep)), hex.EncodeToString(digest.Sum(nil)), keep
}

func upload(address string, size int64, pattern []byte) string {
	connection, err := net.Dial("tcp", address)
	say.Need("dial", err)
	defer connection.Close()
	_, err = io.WriteString(connection, "put\n")
	say.Need("write", err)
	for left := size; left > 0; {
		part := pattern[:min(left, int64(len(pattern)))]
		written, err := connection.Write(part)
		say.Need("write", err)
		left -= int64(written)
	}
	say.Need("half-close", connection.(*net.TCPConn).CloseWrite())
	line, err := bufio.NewReader(connection).ReadString('\n')
	say.Need("answer", err)
	return line
}

func main() {
	say.Limit()
	address := os.Args[1]
	size, err := strconv.ParseInt(os.Args[2], 10, 64)
	say.Need("size", err)
	count, digest, pattern := download(address, size)
	fmt.Printf("downloaded %d bytes %s\n", count, digest)
	fmt.Printf("uploaded %s", upload(address, size, pattern))
	var group sync.WaitGroup
	results := make([]string, 4)
	for i := range results {
		group.Add(1)
		go func() {
			defer group.Done()
			if i%2 == 0 {
				count, digest, _ := download(address, size/8)
				results[i] = fmt.Sprintf("at once: downloaded %d bytes %s\n", count, digest)
			} else {
				results[i] = "at once: uploaded " + upload(address, size/8, pattern)
			}
		}()
	}
	group.Wait()
	for _, result := range results {
		fmt.Print(result)
	}
}
