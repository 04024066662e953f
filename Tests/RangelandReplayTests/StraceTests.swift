// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

/// `strace -f -ttt -T` output.
@Suite struct StraceTests {
  private static let text = """
    70 1795538156.501292 execve("/usr/bin/app", ["app", "a, b)"], 0x7ffee17f81f0 /* 35 vars */) = 0 <0.000303>
    70 1795538156.501710 brk(NULL)       = 0x5581f55f7000 <0.000006>
    70 1795538156.502924 mmap(NULL, 3860088, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3</usr/lib/libx.so>, 0x1000) = 0x7f801b800000 <0.000014>
    70 1795538156.503000 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f801bbc6000 <0.000281>
    70 1795538156.534595 clone3({flags=CLONE_VM|CLONE_THREAD|CLONE_SETTLS, stack=0x7f801a9c1000, stack_size=0x7fff80} => {parent_tid=[71]}, 88) = 71 <0.000055>
    71 1795538156.540000 munmap(0x7f801bbc6000, 8192 <unfinished ...>
    70 1795538156.540005 madvise(0x7f801b800000, 4096, MADV_DONTNEED) = -1 EINVAL (Invalid argument) <0.000010>
    71 1795538156.540100 <... munmap resumed>) = 0 <0.000100>
    71 1795538156.540099 --- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---
    70 1795538156.550000 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f3) = 72 <0.000050>
    72 1795538156.551000 munmap(0x7f801b800000, 4096) = 0 <0.000010>
    70 1795538156.552000 rt_sigaction(SIGINT, {sa_handler=SIG_DFL}, NULL, 8) = 0 <0.000001>
    71 1795538156.560000 exit(0)         = ?
    71 1795538156.560061 +++ exited with 0 +++
    70 1795538156.570000 mremap(0x7f801b800000, 4096, 8192, MREMAP_MAYMOVE) = 0x7f8000000000 <0.000003>
    70 1795538156.570002 mincore(0x7f8000000000, 4096, [1]) = 0 <0.000003>
    70 1795538156.580000 exit_group(0)   = ?
    70 1795538156.580100 +++ exited with 0 +++

    """

  private func imported(_ text: String) throws -> (recording: Recording, report: ImportReport) {
    try Recording.importText(bytes: Array(text.utf8), name: "strace.txt")
  }

  @Test func `a run becomes a recording of its process`() throws {
    let (recording, report) = try imported(Self.text)
    #expect(report.process == 70 && report.otherProcesses == 1)
    #expect(recording.info.program == "app" && recording.info.source == "strace")
    #expect(recording.info.layoutOrigin == .inferred)
    #expect(recording.info.eventClasses == [.calls, .threads])
    #expect(recording.threads.map(\.beginning.id) == [70, 71])
    #expect(recording.threads[1].beginning.parent == 0)
    #expect(recording.threads.allSatisfy { $0.end != nil })
    #expect(recording.files == ["libx.so"])
    #expect(
      recording.calls.map(\.kind) == [
        .brk, .mmap, .mmap, .clone3, .munmap, .madvise, .clone, .mremap, .mincore,
      ])
    let mapping = recording.calls[1]
    #expect(mapping.arguments == CallArguments(0, 3_860_088, 1, 0x802, 3, 0x1000))
    #expect(mapping.file == 0 && mapping.result == 0x7f80_1b80_0000)
    #expect(mapping.exit - mapping.enter == 14_000)
    let unmapping = recording.calls[4]
    #expect(unmapping.thread == 1 && unmapping.exit - unmapping.enter == 99_000)
    #expect(recording.calls[5].errno == 22)
    // The return is moved before the thread's next line: strace rounds.
    #expect(recording.calls[7].exit == recording.calls[8].enter)
    #expect(recording.calls[6].arguments[0] == 0x20_0011)
    #expect(
      recording.info.omissions.map { "\($0.count) \($0.name)" } == [
        "1 events of other processes", "1 unknown event rt_sigaction",
      ])
  }

  @Test(arguments: [
    "[pid    70] 1.000001 munmap(0x10000, 4096) = 0 <0.000001>",
    "1.000001 munmap(0x10000, 0x1000) = 0",
    "70 1.000001 munmap(65536, 4096)            = 0 <0.000001>",
    "70    1.000001 munmap(0x8000|0x8000 /* both */|1<<16, 4096) = 0 <0.000001>",
  ])
  func `lines of every form are read`(_ line: String) throws {
    let (recording, _) = try imported(line + "\n")
    #expect(recording.calls.count == 1)
    let start = recording.calls.first?.arguments[0] ?? 0
    #expect(start == 0x10000 || start == 0x18000)
    #expect(recording.calls.first?.arguments[1] == 4096)
  }

  @Test(arguments: [
    "70 1.000002 munmap(0x10000, 4096 <detached ...>", "70 1.000002 munmap( <detached ...>",
    "70 1.000002 execve(\"/bin/sleep\", [\"sleep\", \"9\"], 0x55e3071aeac0 /* 35 vars */ <detached ...>",
    "71 1.000001 munmap(0x10000, 4096 <unfinished ...>\n"
      + "71 1.000002 <... munmap resumed> <detached ...>",
  ])
  func `a call that was under way when strace was interrupted has no result`(_ end: String) throws {
    let good = "70 1.000001 munmap(0x20000, 4096) = 0 <0.000001>"
    let (recording, _) = try imported("\(good)\n\(end)\n")
    #expect(recording.calls.count == 1)
  }

  static let malformed = [
    "hello world", "70 1795538156.6", "70 1795538156.600000 munmap 0x1",
    "70 1795538156.600000 munmap(0x10000, 4096", "70 1795538156.600000 munmap(0x10000, 4096) =",
    "70 1795538156.600000 munmap(0x10000, many) = 0",
    "70 1795538156.600000 munmap(0x10000, 4096) = -1 ENOSUCHERROR (what)",
    "70 1795538156.600000 munmap(0x10000, 4096) = zero", "70 1795538156.600000 <... munmap",
    "70 16:36:00 munmap(0x10000, 4096) = 0",
    // Cut off inside what has an end of its own.
    "70 1.5 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3</usr/lib/lib",
    "70 1.5 munmap(0x10000 /* the",
    "70 1.5 munmap(0x10000, 4096 <unfin", "70 1.5 munmap(<", "70 1.5 execve(\"/bin/sl",
    "70 1.5 munmap(0x10000,, <", "70 1.5 munmap(0x10000 ]",
  ]

  @Test(arguments: malformed)
  func `a malformed line is named with what was expected`(_ line: String) throws {
    let good = "70 1795538156.540005 munmap(0x10000, 4096) = 0 <0.000010>"
    let error = #expect(throws: RecordingError.self) { try imported("\(good)\n\(line)\n\(good)\n") }
    #expect(error?.kind == .malformedLine && error?.place == .line(2), "\(error!)")
    #expect(error?.advice.hasPrefix("expected ") == true)
  }

  @Test func `binary is refused`() throws {
    let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 197 &+ 13) }
    #expect(throws: RecordingError.self) { try Recording.importText(bytes: bytes, name: "b") }
  }

  @Test func `any damage to text is an error or a consistent recording`() {
    damage("damaged strace", Self.text)
  }

  @Test func `a program's mappings are read from the kernel's list`() {
    let maps = ProcessMaps(
      time: 5,
      text: Array(
        """
        00400000-00402000 r-xp 00001000 fe:00 25                         /secret/place/my app
        02000000-02021000 rw-p 00000000 00:00 0                          [heap]
        7f0000000000-7f0000001000 ---p 00000000 00:00 0 
        7f0000001000-7f0000002000 rw-s 00003000 00:05 7                  /dev/shm/x (deleted)
        nonsense
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]
        """.utf8))
    #expect(maps.areas.map(\.start) == [0x40_0000, 0x200_0000, 0x7f00_0000_0000, 0x7f00_0000_1000])
    #expect(maps.areas.map(\.name) == ["my app", "[heap]", "", "x (deleted)"])
    #expect(maps.areas[0].offset == 0x1000 && maps.areas[0].protection == [.read, .execute])
    #expect(maps.areas[3].isShared && maps.areas[2].protection == [])
  }
}
