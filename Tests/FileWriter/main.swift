// SPDX-License-Identifier: Apache-2.0
//
// A process that writes to a file through a mapping, says what is safe, and is killed at some point: see KillTests.
//
//   FileWriter PATH PAGES
//
// Two threads. Thread t stores the number of its round r = 1, 2, ... at byte 64 t of the pages that
// `WriterRounds.pages` names, makes them durable, and then writes t and r (8 bytes each) to its standard output.

import Glibc
import Rangeland
import RangelandTestSupport
import SystemPackage

func complain(_ text: String) {
  let bytes = Array((text + "\n").utf8)
  _ = Glibc.write(2, bytes, bytes.count)
}

func write(_ path: String, _ pages: UInt64) throws {
  let memory = try PhysicalMemory(frameLimit: 1 << 12)
  let file = try FileDescriptor.open(path, .readWrite)
  let object = try FileObject(descriptor: file, memory: memory)
  try file.close()
  let space = try AddressSpace(memory: memory)
  let length = pages * Address.pageSize
  let start = try space.map(
    object, length: length, protection: [.read, .write], sharing: .shared)
  runThreads(WriterRounds.threads) { thread in
    do {
      var round: UInt64 = 0
      while true {
        round += 1
        let touched = WriterRounds.pages(thread, round, of: pages)
        for page in touched {
          try space.store(round, at: start + page * Address.pageSize + UInt64(thread) * 64)
        }
        switch round % 4 {
        case 0: try object.synchronize()
        case 1: try space.synchronize(at: start, length: length)
        default:
          for page in touched {
            try space.synchronize(at: start + page * Address.pageSize, length: 1)
          }
        }
        // In one piece: shorter than PIPE_BUF.
        var message = (UInt64(thread), round)
        let written = withUnsafeBytes(of: &message) { Glibc.write(1, $0.baseAddress!, $0.count) }
        if written != 16 { exit(1) }
      }
    } catch {
      complain("FileWriter: \(error)")
      exit(2)
    }
  }
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let pages = UInt64(arguments[2]), pages > 0 else {
  complain("FileWriter is started by the tests.")
  exit(64)
}
try write(arguments[1], pages)
