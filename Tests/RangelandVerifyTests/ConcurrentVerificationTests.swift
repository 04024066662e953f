// SPDX-License-Identifier: Apache-2.0
//
// Scripts of several threads before the judge, and the judge before mistakes that only threads show.

import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandVerify

#if RANGELAND_TSAN
  // The helper's address space has to be the script's alone, and the sanitizer lives in it.
  private let hasKernel = false
#else
  private let hasKernel = !KernelProcess.lacksQuery
#endif

@Suite(
  .enabled(
    if: hasKernel,
    "the kernel as the judge needs PROCMAP_QUERY, Linux 6.11, and no sanitizer in the helper"),
  .serialized)
struct ConcurrentVerificationTests {
  @Test(arguments: LockPolicy.allCases, [2, 8])
  func `threads in parts of their own get the kernel's answers`(
    _ policy: LockPolicy, _ threads: Int
  ) throws {
    let random = SeededRandom(for: "verify \(policy) with \(threads) threads")
    var verification = Verification()
    verification.operations = 8000
    verification.policy = policy
    verification.threads = threads
    verification.seed = random.seed
    let report = try withWatchdog(seconds: 120, "verify \(policy)") { () throws(VerifyError) in
      try verification.run()
    }
    if let difference = report.difference {
      Issue.record("\(difference)\n\(report.scriptText)")
    }
    #expect(report.operations == 8000)
    #expect(report.succeeded * 100 >= report.operations * 50)
  }

  /// Found, made shorter, and nothing without the mistake. How often a script must run until the threads meet
  /// again is the machine's matter: that the short one shows it again is not demanded.
  @Test(arguments: Mistake.all.filter { $0.threads > 1 })
  func `a planted mistake that needs threads is found`(_ mistake: Mistake) throws {
    let random = SeededRandom(for: "verify with \(mistake)")
    var verification = Verification()
    verification.operations = mistake.foundWithin
    verification.threads = mistake.threads
    verification.seed = random.seed
    verification.mistake = mistake
    let report = try withWatchdog(seconds: 240, "\(mistake)") { () throws(VerifyError) in
      try verification.run()
    }
    let difference = try #require(
      report.difference, "not found in \(report.operations) operations")
    #expect(difference.what.hasPrefix("together: "))
    #expect(!report.script.isEmpty)
    print("\(mistake): \(report.operations) operations, \(report.script.count) calls are enough")
    verification.mistake = nil
    let without = try verification.run(script: report.scriptText)
    if let difference = without.difference {
      Issue.record("without the mistake: \(difference)\n\(without.scriptText)")
    }
    #expect(without.threads == mistake.threads)
  }

  @Test(arguments: [
    "threads 2\n@1 munmap high+0x0 0x1000", "threads 2\n@2 munmap high+0x0 0x1000",
    "threads 65\nmunmap high+0x0 0x1000", "threads 0\nmunmap high+0x0 0x1000",
    "threads 2\nmmap low+0x1000 0x1000 prot=3 flags=0x32\nmmap low+0x1000 0x1000 prot=3 flags=0x22",
    "@x munmap high+0x0 0x1000", "@64 munmap high+0x0 0x1000",
  ])
  func `a script whose threads leave their parts is refused`(_ text: String) {
    #expect(throws: VerifyError.self) { try Verification().run(script: text) }
  }

  @Test func `a script of threads reads back as it was written`() throws {
    let kernel = try KernelProcess()
    let subject = SpaceFamily(
      try SpaceSubject(windows: kernel.windows, policy: .ranged, memory: try PhysicalMemory()))
    let parts = ThreadParts(kernel.windows, threads: 8)
    var generator = ScriptGenerator(
      seed: 7, windows: kernel.windows, thread: 5, areas: parts.areas[5])
    for _ in 0..<500 {
      let call = generator.next(subject)
      #expect(call.thread == 5)
      #expect(parts.contain(kernel.windows.resolve(call)))
      #expect(try VerifyCall(line: call.description) == call)
    }
  }
}
