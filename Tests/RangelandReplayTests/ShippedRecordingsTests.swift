// SPDX-License-Identifier: Apache-2.0
//
// What holds of every recording that ships.

import Foundation
import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandReplay

@Suite(.serialized) struct ShippedRecordingsTests {
  static let all = ShippedRecordings.programs + ShippedRecordings.written

  private func bytes(_ name: String) throws -> Data {
    try #require(FileManager.default.contents(atPath: ShippedRecordings.path(name)))
  }

  @Test func `every file beside the named ones is named`() throws {
    let folder = URL(fileURLWithPath: try ShippedRecordings.path()).deletingLastPathComponent()
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(Set(files) == Set(Self.all))
    #expect(ShippedRecordings.programs.count >= 3 && Self.all.count >= 5)
  }

  @Test func `each is under 1 MB, all are under 4 MB`() throws {
    let sizes = try Self.all.map { try bytes($0).count }
    #expect(sizes.allSatisfy { $0 < 1_000_000 }, "\(sizes)")
    #expect(sizes.reduce(0, +) < 4_000_000)
  }

  @Test(arguments: all) func `each has threads, calls and how it was made`(_ name: String) throws {
    let recording = try Recording(path: ShippedRecordings.path(name))
    let summary = RecordingSummary(recording)
    #expect(summary.threads >= 4)
    #expect(summary.changingCalls >= (name == ShippedRecordings.rustc ? 1_000 : 5_000))
    // A program's checks for null are faults too.
    #expect(summary.unmappedFaults <= 1)
    #expect(recording.info.layoutOrigin == .recorded)
    #expect(recording.info.note.count > 40, "\(recording.info.note)")
    #expect(try bytes(name)[8] == (name == ShippedRecordings.fileName ? 3 : 2))
    #expect(recording.info.eventClasses.isSuperset(of: [.acquisitions, .switches]))
    #expect(recording.acquisitions.count >= (name == ShippedRecordings.rustc ? 500 : 5_000))
  }

  @Test func `what was written to make calls says so`() throws {
    for name in ShippedRecordings.written {
      let recording = try Recording(path: ShippedRecordings.path(name))
      #expect(recording.info.note.contains("WRITTEN TO MAKE EVERY CALL"), "\(recording.info.note)")
    }
  }

  @Test func `every kind of call appears in one of them`() throws {
    var kinds: Set<CallKind> = []
    for name in Self.all {
      kinds.formUnion(try Recording(path: ShippedRecordings.path(name)).calls.map(\.kind))
    }
    let wanted: Set<CallKind> = [
      .mmap, .munmap, .mprotect, .mremap, .madvise, .brk, .mlock, .mlock2, .munlock, .mlockall,
      .munlockall, .msync, .mincore, .mseal, .remapFilePages, .clone,
    ]
    #expect(wanted.subtracting(kinds).isEmpty, "\(wanted.subtracting(kinds))")
  }

  @Test(arguments: all)
  func `each has its own results here and on the kernel, nothing substituted`(_ name: String)
    throws
  {
    let plan = ReplayPlan(try Recording(path: ShippedRecordings.path(name)))
    #expect(plan.substituted.isEmpty, "\(plan.substituted)")
    try withWatchdog(seconds: 120, "replay of \(name)") {
      let files = try ReplayFiles(sizes: plan.fileSizes)
      let onKernel = try KernelReplay(plan, files)
      let kernel = try onKernel.run(isCancelled: { false })
      #expect(kernel.mismatches == 0, "\(kernel.examples)")
      #expect(onKernel.leftOut.isEmpty, "\(onKernel.leftOut)")
      #expect(kernel.operations == plan.operations)
      #expect(kernel.byOperation.reduce(0) { $0 + $1.count } == plan.operations)
      #expect(kernel.faults > 100)
      // ReplayTests does the first one under every policy.
      if name == ShippedRecordings.fileName { return }
      let found = try Replay(plan, AddressSpace(policy: .ranged), files).run { false }
      #expect(found.mismatches == 0, "\(found.examples)")
    }
  }

  @Test(arguments: ["java-threads.rangeland"])
  func `a simulation comes to the same twice`(_ name: String) throws {
    let runs = try (0..<2).map { _ in
      let program = SimulationProgram(try Recording(path: ShippedRecordings.path(name)))
      return try #require(Simulation.run(program, policy: .perVMA, cores: 8))
    }
    #expect(runs[0].nanoseconds == runs[1].nanoseconds && runs[0].events == runs[1].events)
    #expect(runs[0].waits.waitSeconds == runs[1].waits.waitSeconds)
    #expect(runs[0].waitLengths == runs[1].waitLengths)
    #expect(runs[0].events > 10_000)
  }
}
