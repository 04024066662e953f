// SPDX-License-Identifier: Apache-2.0
//
// Where a recording may be written: a regular file or a new name, never in the place of anything else.

import Foundation
import Glibc
import Testing

@testable import RangelandReplay

@Suite struct OutputTargetTests {
  private func write(to path: String) throws {
    try Recording(info: plainInfo, files: [], initialLayout: [], name: "empty").write(to: path)
  }

  private func kind(_ path: String) -> mode_t? {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
  }

  @Test func `a pipe, a socket's name or a device is refused and stays`() throws {
    let folder = try TemporaryFolder()
    let pipe = folder.path + "/pipe"
    #expect(mkfifo(pipe, 0o600) == 0)
    #expect(throws: RecordingError.self) { try write(to: pipe) }
    #expect(kind(pipe) == S_IFIFO)
    // As root the rename of a temporary file would have replaced the device for the whole machine.
    let link = folder.path + "/null"
    #expect(symlink("/dev/null", link) == 0)
    let error = #expect(throws: RecordingError.self) { try write(to: link) }
    #expect(error?.kind == .cannotWrite)
    #expect(kind(link) == S_IFLNK)
    #expect(kind("/dev/null") == S_IFCHR)
    #expect(throws: RecordingError.self) { try write(to: folder.path) }
    #expect(try folder.contents == ["null", "pipe"])
  }

  @Test func `a link keeps pointing at the file that is written`() throws {
    let folder = try TemporaryFolder()
    try "old".write(toFile: folder.path + "/file", atomically: false, encoding: .utf8)
    #expect(symlink("file", folder.path + "/link") == 0)
    try write(to: folder.path + "/link")
    #expect(kind(folder.path + "/link") == S_IFLNK)
    #expect(try Recording(path: folder.path + "/file").info.program == plainInfo.program)
    #expect(try folder.contents == ["file", "link"])
  }

  @Test func `a link that leads nowhere becomes the file`() throws {
    let folder = try TemporaryFolder()
    #expect(symlink("missing", folder.path + "/link") == 0)
    try write(to: folder.path + "/link")
    #expect(try Recording(path: folder.path + "/link").info.program == plainInfo.program)
  }
}
