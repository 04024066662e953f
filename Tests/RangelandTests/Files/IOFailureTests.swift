// SPDX-License-Identifier: Apache-2.0
//
// The k-th read, write, fsync or change of size of a script fails, for every k.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct IOFailureTests {
  /// An access is refused by that page only, and works when it is made again; what could not be written or made durable
  /// is told once to each who has the file open, by whomever it was tried; a size or a hole is there or not; and at the
  /// end nothing is lost.
  @Test(arguments: LockPolicy.allCases, [false, true])
  func `whichever input or output fails, it is told, and nothing is lost`(
    _ policy: LockPolicy, _ isPersistent: Bool
  ) throws {
    let random = SeededRandom(for: "failing input and output, \(policy) \(isPersistent)")
    var failures = Failures()
    for script in 0..<4 {
      var k = 0
      while true {
        var run = try FailureRun(policy, failing: k, isPersistent: isPersistent)
        var generator = random.fork(script)
        let what = "script \(script), action \(k)"
        for _ in 0..<40 { try run.step(&generator, what) }
        try run.finish(what)
        if !run.faults.hasFailed { break }
        failures.add(run.faults.failed)
        k += 1
        try #require(k < 400)
      }
    }
    print("\(policy): \(failures)")
    #expect(failures.isComplete, "\(failures)")
  }

  private struct Failures: CustomStringConvertible {
    private var counts: [String: Int] = [:]

    mutating func add(_ actions: [FileAction]) {
      for action in actions { counts[Self.name(action), default: 0] += 1 }
    }

    private static func name(_ action: FileAction) -> String {
      switch action {
      case .read: "read"
      case .write: "write"
      case .synchronize: "fsync"
      case .resize: "resize"
      case .discard: "discard"
      }
    }

    /// Whether every kind has failed.
    var isComplete: Bool { counts.count == 5 }
    var description: String {
      "\(counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" })"
    }
  }
}

/// What is done with the file, of which the k-th fails; with `isPersistent` also what follows in the same operation.
private final class Faults: Sendable {
  private struct State {
    var count = 0
    var isArmed = true
    var isFailing = false
    var failed: [FileAction] = []
    /// Of the operation that runs.
    var now: [FileAction] = []
  }
  private let state = Latched(State())
  private let failing: Int
  private let isPersistent: Bool

  init(failing: Int, isPersistent: Bool) {
    (self.failing, self.isPersistent) = (failing, isPersistent)
  }

  func ask(_ action: FileAction) -> Errno? {
    state.withLock { state in
      defer { state.count += 1 }
      if state.count == failing, state.isArmed { state.isFailing = true }
      guard state.isFailing else { return nil }
      state.failed.append(action)
      state.now.append(action)
      if !isPersistent { state.isFailing = false }
      return .ioError
    }
  }

  /// Nothing fails any more.
  func disarm() { state.withLock { $0.isArmed = false } }

  var failed: [FileAction] { state.withLock(\.failed) }
  var hasFailed: Bool { !failed.isEmpty }

  /// The operation is over; what has failed in it.
  func endOperation() -> [FileAction] {
    state.withLock { state in
      defer { (state.now, state.isFailing) = ([], false) }
      return state.now
    }
  }
}

/// One file, two spaces that map it, two handles; and what all of it ought to be.
private struct FailureRun {
  let faults: Faults
  private let memory: PhysicalMemory
  private let file: TestFile
  private let handles: [FileObject]
  private let spaces: [AddressSpace]
  private let places: [Address]
  /// Whether an error is still to be told: to the mappings, then to the handles.
  private var pending = [Bool](repeating: false, count: 4)
  /// By page: the word at its start, and the size.
  private var words: [UInt64]
  private var size: UInt64
  private var value: UInt64 = 1_000

  private static let most: UInt64 = 8

  init(_ policy: LockPolicy, failing k: Int, isPersistent: Bool) throws {
    let (memory, space, other) = try makeSpaces(policy)
    // Nobody but the script reads and writes.
    memory.files.writer.stop()
    (self.memory, spaces) = (memory, [space, other])
    file = try TestFile(pages: 6)
    words = (0..<Self.most).map { $0 < 6 ? ($0 + 1) &* 0x0101_0101_0101_0101 : 0 }
    size = 6 * page
    let faults = Faults(failing: k, isPersistent: isPersistent)
    self.faults = faults
    let (first, second) = (
      try FileObject(descriptor: file.descriptor, memory: memory),
      try FileObject(descriptor: file.descriptor, memory: memory)
    )
    handles = [first, second]
    places = try spaces.map {
      try $0.map(
        first, length: Self.most * page, protection: [.read, .write], sharing: .shared)
    }
    first.source.trace { faults.ask($0) }
  }

  mutating func step(_ random: inout SeededRandom, _ what: String) throws {
    let index = random.below(Self.most)
    let who = Int(random.below(2))
    let at = places[who] + index * page
    let isThere = index * page < size
    value += 1
    switch random.below(18) {
    case 0..<4:
      try access(isThere, what) { run in
        let seen = try run.spaces[who].load(UInt64.self, at: at)
        #expect(seen == run.words[Int(index)], "\(what): page \(index)")
      }
    case 4..<9:
      try access(isThere, what) { run in
        try run.spaces[who].store(run.value, at: at)
        run.words[Int(index)] = run.value
      }
    case 9, 10:
      told(
        who, errno { try spaces[who].synchronize(at: places[who], length: Self.most * page) }, what)
    case 11: told(2 + who, errno { try handles[who].synchronize() }, what)
    case 12:
      let error = errno { try handles[who].truncate(to: index * page) }
      let isRefused = note { if case .resize = $0 { true } else { false } }
      #expect(error == (isRefused ? .ioError : nil), "\(what)")
      if !isRefused {
        size = index * page
        for i in Int(index)..<Int(Self.most) { words[i] = 0 }
      }
    case 13:
      let error = errno { try handles[who].punchHole(at: index * page, length: page) }
      let isRefused = note { if case .discard = $0 { true } else { false } }
      #expect(error == (isRefused ? .ioError : nil), "\(what)")
      if !isRefused { words[Int(index)] = 0 }
    case 14:
      memory.writeBackAll()
      _ = note { _ in false }
    case 15, 16:
      // Out of memory, so that it has to be read again.
      for i in 0..<2 { try spaces[i].advise(.pageOut, at: places[i], length: Self.most * page) }
      _ = note { _ in false }
    default:
      if size == 0 { return }
      // From the other space, by whoever holds neither lock.
      let from = places[1 - who] + (size / page - 1) * page
      try access(isThere, what) { run in
        var isDone = false
        if let count = try? run.spaces[who].read(
          from: run.spaces[1 - who], at: from, into: at, length: 8)
        {
          isDone = count == 8
        }
        // The one way in which it says so.
        if !isDone { throw AccessFault(reason: .noPage, address: at, access: .write) }
        run.words[Int(index)] = run.words[Int(run.size / page - 1)]
      }
    }
  }

  /// An access that works if the page is there, but when the file fails; and then when it is made again.
  private mutating func access(
    _ isThere: Bool, _ what: String, _ body: (inout FailureRun) throws -> Void
  ) throws {
    let result = refusal { try body(&self) }
    let hasFailed = note { if case .read = $0 { true } else { false } }
    if !isThere {
      #expect(result == .noPage, "\(what): behind the end")
    } else if result != nil {
      #expect(result == .noPage && hasFailed, "\(what): \(String(describing: result))")
      #expect(refusal { try body(&self) } == nil, "\(what): again")
    }
  }

  /// An operation that tells errors of writing to one who has the file open.
  private mutating func told(_ who: Int, _ error: Errno?, _ what: String) {
    _ = note { _ in false }
    #expect(error == (pending[who] ? .ioError : nil), "\(what): told \(who)")
    pending[who] = false
  }

  /// What has failed in the operation that is over is to be told to everybody; whether anything is of a kind.
  private mutating func note(_ isOfKind: (FileAction) -> Bool) -> Bool {
    let failed = faults.endOperation()
    for action in failed {
      switch action {
      case .write, .synchronize: pending = [true, true, true, true]
      default: break
      }
    }
    return failed.contains(where: isOfKind)
  }

  mutating func finish(_ what: String) throws {
    for who in 0..<2 {
      told(
        who, errno { try spaces[who].synchronize(at: places[who], length: Self.most * page) }, what)
      told(2 + who, errno { try handles[who].synchronize() }, what)
    }
    // One of them may have met the failure, and the others are still to be told.
    faults.disarm()
    for who in 0..<2 {
      told(
        who, errno { try spaces[who].synchronize(at: places[who], length: Self.most * page) }, what)
      told(2 + who, errno { try handles[who].synchronize() }, what)
    }
    #expect(!pending.contains(true) && handles[0].dirtyBytes == 0, "\(what)")
    #expect(handles[0].size == size)
    for i in 0..<Int(size / page) {
      var seen: UInt64 = 0
      _ = try withUnsafeMutableBytes(of: &seen) {
        try file.descriptor.read(fromAbsoluteOffset: Int64(i) * 4096, into: $0)
      }
      #expect(seen == words[i], "\(what): page \(i) of the file")
    }
  }
}
