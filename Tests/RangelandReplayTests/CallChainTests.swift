// SPDX-License-Identifier: Apache-2.0
//
// Call chains of waits: from perf's lines to what is said of them.

import Foundation
import Rangeland
import Testing

@testable import RangelandReplay

/// Two chains of two functions of three.
let someChains: CallChains = {
  var builder = CallChainBuilder()
  let frames = [("lock", true), ("free", false), ("main", false)].map { name, isKernel in
    builder.frame(.init(function: name, module: isKernel ? "[kernel]" : "app", isKernel: isKernel))
  }
  _ = builder.chain([frames[0], frames[2]])
  _ = builder.chain([frames[0], frames[1]])
  return builder.chains
}()

@Suite struct CallChainTests {
  private func imported(_ text: String) throws -> Recording {
    try Recording.importText(bytes: Array(text.utf8), name: "perf.txt").recording
  }

  private static let lock = "mm=0xffff888102762580 memcg_id=1 write=true"

  /// What perf prints: other events have their own function at the end of their line, and one that a chain belongs to
  /// has a line for each below it.
  private static let text = """
    a 5/5 [000] 1.000001000: syscalls:sys_enter_munmap: addr: 0x7f0000000000, len: 0x00001000     7fdbe891fa07 __munmap (/usr/lib/libc.so.6)
    a 5/5 [000] 1.000001010: mmap_lock:mmap_lock_start_locking: \(lock)
    \tffffffff815f502b __mmap_lock_do_trace_start_locking ([kernel.kallsyms])
    \tffffffff8162c405 xfs_buf_free+0x1a2 ([xfs])
    \t          101a07 __munmap (/usr/lib/x86_64-linux-gnu/libc.so.6)
    \t            1208 std::function<void (int)>::operator()(int) const (/opt/a b/app (deleted))
    \t    7f1200001208 [unknown] (/tmp/perf-5.map)
    \t    7f1200001209

    a 5/5 [000] 1.000001020: mmap_lock:mmap_lock_acquire_returned: \(lock) success=true ffffffff815f5150 __mmap_lock_do_trace_acquire_returned ([kernel.kallsyms])
    \tffffffff815f5150 later ([kernel.kallsyms])

    a 5/5 [000] 1.000001030: mmap_lock:mmap_lock_released: \(lock)
    \tffffffff815f5150 never ([kernel.kallsyms])

    a 5/5 [000] 1.000001040: syscalls:sys_exit_munmap: 0x0     7fdbe891fa07 __munmap (/usr/lib/libc.so.6)
    \t    7fdbe891fa07 also never (/usr/lib/libc.so.6)

    b 9/9 [001] 1.000001041: mmap_lock:mmap_lock_start_locking: mm=0xffff888109999999 memcg_id=1 write=true
    \t            1000 of_another_program (/bin/b)

    a 5/5 [000] 1.000001050: exceptions:page_fault_user: address=0x7f0000001000 ip=0x7f00 error_code=0x4 ffffffff82261200 exc_page_fault ([kernel.kallsyms])
    a 5/5 [000] 1.000001060: mmap_lock:mmap_lock_acquire_returned: \(lock) success=false
    \t            1000 tried (/bin/app)
    a 5/5 [000] 1.000001070: mmap_lock:mmap_lock_start_locking: \(lock)

    a 5/5 [000] 1.000001080: mmap_lock:mmap_lock_acquire_returned: \(lock) success=true
    \t            1000 tried (/bin/app)
    """

  @Test func `a chain is that of the event it stands below`() throws {
    let recording = try imported(Self.text)
    #expect(recording.info.eventClasses.contains(.callChains))
    // The program's own only, each once; the first of an acquisition's two counts.
    #expect(recording.acquisitions.map(\.chain) == [0, 1, 1])
    #expect(recording.chains.count == 2)
    #expect(
      recording.chains.chain(0) == [
        .init(
          function: "__mmap_lock_do_trace_start_locking", module: "[kernel]", isKernel: true),
        .init(function: "xfs_buf_free", module: "[xfs]", isKernel: true),
        .init(function: "__munmap", module: "libc.so.6", isKernel: false),
        .init(
          function: "std::function<void (int)>::operator()(int) const", module: "app (deleted)",
          isKernel: false), .init(function: "[unknown]", module: "perf-5.map", isKernel: false),
        .init(function: "[unknown]", module: "", isKernel: false),
      ])
    #expect(
      recording.chains.chain(1) == [.init(function: "tried", module: "app", isKernel: false)])
    #expect(!recording.chains.frames.contains { $0.function.contains("never") })
    #expect(!recording.chains.frames.contains { $0.function == "of_another_program" })
    #expect(recording.calls.map(\.kind) == [.munmap] && recording.faults.count == 1)
    let folder = try TemporaryFolder()
    try recording.write(to: folder.path + "/r")
    let isSame = try Recording(path: folder.path + "/r") == recording
    #expect(isSame)
  }

  @Test(arguments: [true, false])
  func `an event that is told with and without its chain is one`(_ isChainFirst: Bool) throws {
    let chain = "\n\t            1000 asked (/bin/app)\n"
    let recording = try imported(
      """
      a 5/5 [000] 1.000001000: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4
      a 5/5 [000] 1.000001010: mmap_lock:mmap_lock_start_locking: \(Self.lock)\(isChainFirst ? chain : "")
      a 5/5 [000] 1.000002010: mmap_lock:mmap_lock_start_locking: \(Self.lock)\(isChainFirst ? "" : chain)
      a 5/5 [000] 1.000002020: mmap_lock:mmap_lock_acquire_returned: \(Self.lock) success=true
      a 5/5 [000] 1.000002030: mmap_lock:mmap_lock_released: \(Self.lock)
      """)
    #expect(
      recording.acquisitions == [
        RecordedAcquisition(thread: 0, time: 1010, waited: 10, held: 10, isWrite: true, chain: 0)
      ])
    #expect(recording.info.omissions.isEmpty)
  }

  @Test func `without chains there is no class of them`() throws {
    let recording = try imported(
      Self.text.split(separator: "\n").filter { !$0.hasPrefix("\t") }.joined(separator: "\n"))
    #expect(recording.acquisitions.count == 3 && recording.chains.isEmpty)
    #expect(!recording.info.eventClasses.contains(.callChains))
  }

  @Test(arguments: ["\tmain (app)", "\t0x12 main (app)", "\tffffffffffffffffff f (a)", "\t12345g"])
  func `a line that is no function is refused`(_ line: String) throws {
    let text =
      "a 5/5 [000] 1.000001: mmap_lock:mmap_lock_start_locking: \(Self.lock)\n\(line)\n"
    let failure = try #require(throws: RecordingError.self) { try imported(text) }
    #expect(failure.kind == .malformedLine && failure.place == .line(2))
  }

  @Test(arguments: ["\tab", "\tzz", "#1 pool", "# x"])
  func `a thread may be called like a function or a comment`(_ name: String) throws {
    let recording = try imported(
      """
      # perf's own: 5/5
      a 5/5 [000] 1.000001000: mmap_lock:mmap_lock_start_locking: \(Self.lock)
      \t            1000 asked (/bin/app)

      \(name) 5/6 [000] 1.000001010: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4
      a 5/5 [000] 1.000001020: mmap_lock:mmap_lock_acquire_returned: \(Self.lock) success=true

      """)
    #expect(recording.threads.map(\.beginning.id) == [5, 6])
    #expect(recording.faults.count == 1)
    #expect(recording.chains.count == 1 && recording.chains.frames.map(\.function) == ["asked"])
  }

  @Test func `what a name tells of folders or to a terminal is left out`() throws {
    let recording = try imported(
      """
      a 5/5 [000] 1.000001000: mmap_lock:mmap_lock_start_locking: \(Self.lock)
      \t            1000 JS:^churn /home/me/work/n.js:2:15 (/tmp/perf-5.map)
      \t            2000 JS:*visit file:///app/lib/index.js:10:3 (/tmp/perf-5.map)
      \t            3000 a/b c (/usr/bin/app)
      \t            4000 [unknown] (//anon)
      \t            5000 f\u{1b}[31m (/usr/bin/app)\r

      a 5/5 [000] 1.000001010: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4
      a 5/5 [000] 1.000001020: mmap_lock:mmap_lock_acquire_returned: \(Self.lock) success=true

      """)
    #expect(
      recording.chains.frames.map(\.described) == [
        "JS:^churn n.js:2:15 (perf-5.map)", "JS:*visit index.js:10:3 (perf-5.map)",
        "a/b c (app)", "[unknown] ([anonymous])", "f[31m (app)",
      ])
  }

  // MARK: the file

  private func failure(
    _ chains: CallChains = someChains, chain: Int? = 0, version: UInt16 = 3
  ) throws -> RecordingError? {
    let events = [beginning(0, at: 0), acquisition(at: 1, chain: chain)]
    do throws(RecordingError) {
      _ = try Recording(
        bytes: fileBytes(events, chains: chains, version: version), name: "bad.rangeland")
      return nil
    } catch {
      return error
    }
  }

  @Test func `chains that cannot be are refused`() throws {
    #expect(try failure() == nil)
    #expect(try failure(chain: nil) == nil)
    #expect(try failure(chain: 2)?.reason.contains("call chain 2 of 2") == true)
    #expect(try failure(version: 2)?.reason.contains("a block of version 3") == true)
    var chains = CallChains()
    chains.append(chain: [0])
    #expect(try failure(chains)?.reason.contains("names function 0 of 0") == true)
    chains = someChains
    chains.append(chain: [] as [UInt32])
    #expect(try failure(chains)?.reason.contains("without functions") == true)
  }

  @Test func `the writer refuses a chain that is not in the table`() throws {
    let folder = try TemporaryFolder()
    var writer = try RecordingWriter(
      path: folder.path + "/r", info: plainInfo, files: [], initialLayout: [], chains: someChains)
    try writer.append(beginning(0, at: 0))
    let failure = #expect(throws: RecordingError.self) {
      try writer.append(acquisition(at: 1, chain: 2))
    }
    #expect(failure?.kind == .impossibleEvent)
  }

  // MARK: what is said

  private static let low: UInt64 = 0x1000_0000

  /// Thread 0 holds for 5 us; 1 waits 4 us on other pages and 2 waits 4.5 us on the same.
  private func waiting() throws -> Recording {
    var info = plainInfo
    info.eventClasses = [.calls, .threads, .acquisitions, .callChains]
    var recording = try Recording(
      info: info, files: [],
      initialLayout: [
        RecordedArea(start: Self.low, end: Self.low + (1 << 20), protection: [.read, .write])
      ], chains: someChains, name: "test")
    for thread in 0..<3 { try recording.append(beginning(thread, at: 0)) }
    for (thread, page, time, waited, held, chain) in [
      (0, 0, 1000, 0, 5000, 0), (1, 16, 2000, 4000, 1000, 1), (2, 1, 2500, 4500, 100, 1),
    ] as [(Int, UInt64, UInt64, UInt64, UInt64, Int)] {
      try recording.append(
        call(
          .munmap, CallArguments(Self.low + page * 4096, 4 * 4096), thread: thread, at: time,
          to: time + waited + held))
      try recording.append(
        acquisition(
          thread: thread, at: time, waited: waited, held: held, isWrite: true, chain: chain))
    }
    return recording
  }

  @Test func `a chain is one, whatever is known of its operation, and of many ahead five are told`()
    throws
  {
    var tally = ChainWaits.Tally()
    for number in 0..<8 {
      tally.add(
        .init(chain: 0, operation: number == 0 ? nil : .fault),
        behind: .init(chain: nil, operation: OperationKind.allCases[number]),
        UInt64(100 - number / 2),
        falsely: 1)
    }
    #expect(tally.count == 1)
    let chain = try #require(tally.longest(10, someChains).first)
    #expect(chain.operation == .fault && chain.waits == 8 && chain.falseNanoseconds == 8)
    #expect(chain.blockers.map(\.operation) == OperationKind.allCases.prefix(5).map { $0 })
    #expect(chain.blockers.allSatisfy { $0.frames.isEmpty })
  }

  @Test func `waits are summed up by chain, with what was ahead`() throws {
    let waits = try #require(RecordedWaits(try waiting()))
    #expect(waits.chainCount == 1 && waits.chains.count == 1)
    let chain = try #require(waits.chains.first)
    #expect(chain.frames == someChains.chain(1))
    #expect(chain.operation == .unmap && chain.waits == 2)
    #expect(chain.nanoseconds == 8500 && chain.longest == 4500)
    #expect(chain.falseNanoseconds == 4000 + 1000)
    #expect(chain.blockers.map(\.frames) == [someChains.chain(0)])
    #expect(chain.blockers.map(\.nanoseconds) == [8500])
  }

  @Test func `a line has the program's functions without parameters`() {
    typealias Frame = CallChains.Frame
    func frame(_ name: String, isKernel: Bool = false) -> Frame {
      Frame(function: name, module: "m", isKernel: isKernel)
    }
    let chain = [
      frame("__mmap_lock_do_trace_start_locking", isKernel: true),
      frame("do_madvise", isKernel: true), frame("do_syscall_64", isKernel: true),
      frame("[unknown]"), frame("[unknown]"), frame("f<void (int)>(char)"),
      frame("g::operator()(int)"), frame("operator()"), frame("(anonymous)"),
      frame("main@@GLIBC_2.34"),
    ]
    #expect(
      CallChains.line(chain)
        == "[unknown] < f<...> < g::operator() < operator() < (anonymous) < main")
    #expect(CallChains.line(chain, limit: 2) == "[unknown] < f<...> < ...")
    #expect(CallChains.line(chain, withKernel: true, limit: 1) == "do_madvise < ...")
    #expect(CallChains.line(Array(chain.prefix(3))) == "do_madvise")
    #expect(CallChains.line([]) == "no call chain")
  }

  @Test(arguments: [
    ("std::vector<int, std::allocator<int> >::push_back(int&&)", "std::vector<...>::push_back"),
    ("void run<app::Task<4>, (Mode)1>(char const*) const", "void run<...>"),
    ("operator<(A const&, B const&)", "operator<"), ("A::operator<<(int)", "A::operator<<"),
    ("A::operator->() const", "A::operator->"),
    ("Foo::operator void (*)(int)", "Foo::operator void (*)(int)"),
    ("<alloc::vec::Vec<T> as Drop>::drop", "<alloc::vec::Vec<...> as Drop>::drop"),
    ("pthread_create@@GLIBC_2.34", "pthread_create"), ("f@plt", "f"),
    ("JS:*visit @babel/traverse/index.js:10:3", "JS:*visit @babel/traverse/index.js:10:3"),
    ("a < b", "a < b"),
    (
      String(repeating: "x", count: 100),
      String(repeating: "x", count: 28) + "..." + String(repeating: "x", count: 29)
    ),
  ])
  func `a short name keeps what tells`(_ name: String, _ short: String) {
    #expect(CallChains.Frame(function: name, module: "", isKernel: false).shortName == short)
  }

  @Test func `a line is not much longer than 200 characters`() {
    let long = CallChains.Frame(
      function: String(repeating: "long_", count: 11), module: "", isKernel: false)
    let line = CallChains.line(Array(repeating: long, count: 6))
    #expect(line.hasSuffix(" < ...") && line.count <= 200)
  }

  @Test func `show and compare say which chains waited, and a page shows them`() throws {
    let folder = try TemporaryFolder()
    try waiting().write(to: folder.path + "/r")
    let run = try Tool.shell(
      """
      cd "$1" && "$TOOL" show --call-chains 3 r && "$TOOL" compare --rounds 1 --html p r &&
        "$TOOL" show --json --call-chains 1 r > s.json && "$TOOL" compare --rounds 1 --json r > c.json
      """, [folder.path])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.contains("2 call chains of 3 functions"))
    #expect(run.output.contains("unmap 0.009 ms in 2 waits, 59 % of it false"), "\(run.output)")
    #expect(run.output.contains("        free (app)\n    100 % behind unmap, 2 waits\n"))
    #expect(
      run.output.contains("unmap 0.009 ms in 2 waits: free\n      100 % behind unmap: main\n"))
    func chains(_ file: String, _ path: (Any) -> Any?) throws -> [[String: Any]] {
      let data = try #require(FileManager.default.contents(atPath: "\(folder.path)/\(file)"))
      return try #require(try path(JSONSerialization.jsonObject(with: data)) as? [[String: Any]])
    }
    for found in [
      try chains("s.json") { ($0 as? [String: Any])?["waitingChains"] },
      try chains("c.json") {
        let recordings = ($0 as? [String: Any])?["recordings"] as? [[String: Any]]
        return (recordings?.first?["recorded"] as? [String: Any])?["waitingChains"]
      },
    ] {
      let functions = try #require(found.first?["functions"] as? [[String: Any]])
      #expect(functions.map { $0["function"] as? String } == ["lock", "free"])
      #expect(functions.map { $0["kernel"] as? Bool } == [true, false])
    }
    let page = try String(contentsOfFile: folder.path + "/p", encoding: .utf8)
    #expect(page.contains("<code>free</code></summary>"))
    #expect(page.contains("<pre>lock ([kernel])\nfree (app)</pre>"))
  }

  @Test func `a recording without chains says how to get them`() throws {
    let folder = try TemporaryFolder()
    try Recording(bytes: fileBytes([beginning(0, at: 0)]), name: "r").write(to: folder.path + "/r")
    let run = try Tool.shell(
      "cd \"$1\"; $TOOL show --call-chains 3 r; echo $?; $TOOL show --call-chains 0 r",
      [folder.path])
    #expect(run.status == 64 && run.output == "1\n")
    #expect(run.errors.contains("has no call chains; record with --call-chains dwarf"))
    #expect(run.errors.contains("--call-chains is a number from 1 to 100"))
  }
}
