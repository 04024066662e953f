// SPDX-License-Identifier: Apache-2.0
//
// An address space before the judge, and the judge before planted mistakes.

import Glibc
import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandVerify

@Suite(
  .enabled(
    if: !KernelProcess.lacksQuery, "the kernel as the judge needs PROCMAP_QUERY, Linux 6.11"),
  .serialized)
struct VerificationTests {
  @Test(arguments: LockPolicy.allCases)
  func `a space does what the kernel does`(_ policy: LockPolicy) throws {
    let random = SeededRandom(for: "verify \(policy)")
    var verification = Verification()
    verification.operations = 4000
    verification.policy = policy
    verification.seed = random.seed
    let report = try withWatchdog(seconds: 120, "verify \(policy)") { () throws(VerifyError) in
      try verification.run()
    }
    if let difference = report.difference {
      Issue.record("\(difference)\n\(report.scriptText)")
    }
    #expect(report.operations == 4000)
    // A long run has to reach 60 %; eight scripts may have a low limit in two of them.
    #expect(report.succeeded * 100 >= report.operations * 45)
  }

  /// The helper gets files under numbers from 100 on. Here its channel, and the files, have each of these numbers once.
  @Test func `descriptors that are in use are in nobody's way`() throws {
    var random = SeededRandom(for: "descriptors")
    var opened: [Int32] = []
    defer { for descriptor in opened { close(descriptor) } }
    for next in Int32(80)..<110 {
      while opened.last ?? 0 < next {
        let descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        opened.append(descriptor)
      }
      var verification = Verification()
      verification.operations = 64
      verification.kinds = [.mapFile, .load, .store]
      verification.seed = random.below(.max)
      let report = try verification.run()
      #expect(report.difference == nil, "numbers from \(next) on were free")
    }
  }

  /// Each is found within so many operations; the script that shows it is short, still shows it when its
  /// text is run, and shows nothing without the mistake.
  @Test(arguments: Mistake.all.filter { $0.threads == 1 })
  func `a planted mistake is found`(_ mistake: Mistake) throws {
    let random = SeededRandom(for: "verify with \(mistake)")
    var verification = Verification()
    verification.operations = mistake.foundWithin
    verification.kinds = mistake.kinds
    verification.seed = random.seed
    verification.mistake = mistake
    let report = try withWatchdog(seconds: 400, "\(mistake)") { () throws(VerifyError) in
      try verification.run()
    }
    try #require(report.difference != nil, "not found in \(report.operations) operations")
    // No single call can be taken away; that is most often under ten, but there are longer local minima.
    #expect(!report.script.isEmpty && report.script.count <= 100)
    print("\(mistake): \(report.operations) operations, \(report.script.count) calls are enough")
    let again = try verification.run(script: report.scriptText)
    // One mistake may show in several ways: which is seen first depends on how often all is read.
    #expect(again.difference != nil)
    verification.mistake = nil
    let without = try verification.run(script: report.scriptText)
    #expect(without.difference == nil)
  }

  @Test(arguments: VerifyCall.Kind.allCases)
  func `a run of one kind of calls is judged by that kind's coverage`(
    _ kind: VerifyCall.Kind
  ) throws {
    let random = SeededRandom(for: "verify --only \(kind)")
    var verification = Verification()
    verification.operations = Coverage.judgedFrom
    verification.kinds = [kind]
    verification.seed = random.seed
    let report = try withWatchdog(seconds: 120, "only \(kind)") { () throws(VerifyError) in
      try verification.run()
    }
    #expect(report.difference == nil)
    #expect(report.shortfalls.isEmpty)
    // Nothing but the kind and what it needs.
    let made = ([kind] + kind.definition.needs).map(\.rawValue)
    let others = Set(VerifyCall.Kind.allCases.map(\.rawValue)).subtracting(made)
    #expect(report.coverage.hits.keys.allSatisfy { !others.contains($0.call) })
  }

  @Test func `a script reads back as it was written`() throws {
    var generator = ScriptGenerator(seed: 7, windows: try KernelProcess().windows)
    let kernel = try KernelProcess()
    let subject = SpaceFamily(
      try SpaceSubject(windows: kernel.windows, policy: .ranged, memory: try PhysicalMemory()))
    for _ in 0..<500 {
      let call = generator.next(subject)
      #expect(try VerifyCall(line: call.description) == call)
    }
  }

  @Test(arguments: [
    "mmap high+0x0", "fork 0x0 0x0", "mmap high+0x0 0x1000 prot=9 flags=0x200000022",
    "load high+0x0 3",
    "madvise high+0x0 0x1000 advice=100", "munmap middle+0x0 0x1000",
    "mmap 0x0 0x1000 prot=1 flags=0x2",
  ])
  func `a line that is no call is refused`(_ line: String) {
    #expect(throws: VerifyError.self) { try VerifyCall(line: line) }
  }

  @Test(arguments: [
    "munmap 0x10000 0x1000", "mmap 0x555555555000 0x1000 prot=3 flags=0x32",
    "mprotect high+0x0 0x7000000000 prot=1", "store high-0x8 8 value=0x1",
    "store 0x7ffff7ff0000 8 value=0x1",
  ])
  func `a script cannot reach the helper's own memory`(_ line: String) {
    #expect(throws: VerifyError.self) { try Verification().run(script: line) }
  }

  @Test func `a run that exercised nothing does not pass`() {
    var report = Verification.Report(seed: 1, policy: .ranged)
    report.operations = Coverage.judgedFrom
    report.succeeded = report.operations
    #expect(report.shortfalls.count >= Coverage.required().count)
    report.coverage = Coverage()
    for wanted in Coverage.required() {
      for _ in 0..<wanted.minimum {
        report.coverage.add(
          .init(
            call: wanted.call, answer: wanted.answer, before: wanted.before ?? "-",
            joined: wanted.joined ?? "-"))
      }
    }
    #expect(report.shortfalls.isEmpty)
    report.succeeded = report.operations / 2
    #expect(report.shortfalls.count == 1)
    report.succeeded = report.operations
    report.departures = [0: report.operations]
    #expect(report.shortfalls.count == 1)
  }
}
