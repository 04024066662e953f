// SPDX-License-Identifier: Apache-2.0
//
// Simulated waits by call chain, on recordings small enough to be worked out by hand.

import Foundation
import Rangeland
import Testing

@testable import RangelandReplay

private let low: UInt64 = 0x1000_0000
private let high: UInt64 = 0x7000_0000

private func record(_ events: [RecordedEvent], chains: CallChains = someChains) throws -> Recording
{
  var info = plainInfo
  info.eventClasses = [.calls, .userFaults, .threads, .acquisitions, .switches, .wakeUps]
  if !chains.isEmpty { info.eventClasses.insert(.callChains) }
  var recording = try Recording(
    info: info, files: [],
    initialLayout: [
      RecordedArea(start: low, end: low + (1 << 20), protection: [.read, .write]),
      RecordedArea(start: high, end: high + (1 << 20), protection: [.read, .write]),
    ], chains: chains, name: "test")
  for event in events { try recording.append(event) }
  return recording
}

/// `thread` unmaps a page of `area` and holds the lock for as long.
private func unmap(
  _ area: UInt64, thread: Int, at time: UInt64, held: UInt64, chain: Int?
) -> [RecordedEvent] {
  [
    call(.munmap, CallArguments(area, 4096), thread: thread, at: time, to: time + held),
    acquisition(thread: thread, at: time, waited: 0, held: held, isWrite: true, chain: chain),
  ]
}

@Suite struct SimulatedChainTests {
  private func waiting(_ chains: CallChains = someChains) throws -> Recording {
    try record(
      [beginning(0, at: 0), beginning(1, at: 0), beginning(2, at: 0)]
        + unmap(low, thread: 0, at: 1000, held: 3000, chain: chains.isEmpty ? nil : 0)
        + unmap(high, thread: 1, at: 2000, held: 1000, chain: chains.isEmpty ? nil : 1)
        + unmap(high + 8192, thread: 2, at: 6000, held: 500, chain: nil), chains: chains)
  }

  private func run(_ recording: Recording, _ policy: LockPolicy) throws -> SimulationRun {
    try #require(Simulation.run(SimulationProgram(recording), policy: policy, cores: 4))
  }

  @Test(arguments: [LockPolicy.semaphore, .wholeRange, .perVMA])
  func `A wait is that of the chain that asked`(_ policy: LockPolicy) throws {
    let found = try run(try waiting(), policy)
    #expect(
      found.chains == [
        .init(chain: 1, operation: .unmap, waits: 1, nanoseconds: 2000, falseNanoseconds: 2000)
      ])
    #expect(found.waits.waits == 1)
    #expect(try run(try waiting(), .ranged).chains.isEmpty)
  }

  @Test func `Without recorded chains there are none`() throws {
    let found = try run(try waiting(CallChains()), .semaphore)
    #expect(found.waits.waits == 1 && found.chains.isEmpty)
  }

  @Test(arguments: LockPolicy.allCases)
  func `Chains add up to all waits`(_ policy: LockPolicy) throws {
    let recording = try Recording(path: ShippedRecordings.path())
    let found = try #require(
      Simulation.run(SimulationProgram(recording), policy: policy, cores: 2))
    #expect(found.chains.count < SimulationRun.chainLimit)
    #expect(found.chains.reduce(0) { $0 + $1.waits } == found.waits.waits)
    let nanoseconds = found.chains.reduce(0) { $0 + $1.nanoseconds }
    #expect(abs(Double(nanoseconds) / 1e9 - found.waits.waitSeconds) < 1e-9)
    let isSorted = zip(found.chains, found.chains.dropFirst()).allSatisfy {
      $0.nanoseconds >= $1.nanoseconds
    }
    #expect(isSorted)
    // Those of runs together: each once, the longest in all first.
    let together = SimulationRun.longestChains([found.chains, found.chains])
    let isSame =
      together == found.chains.filter { $0.chain != nil } + found.chains.filter { $0.chain == nil }
    #expect(isSame)
  }

  /// A fault and a call right after it: what the call asks for is not the fault's.
  @Test func `An acquisition belongs to the call that it lies in`() throws {
    let recording = try record([
      beginning(0, at: 0), fault(low + 40960, at: 1000),
      call(.munmap, CallArguments(high, 4096), at: 2000, to: 4000),
      acquisition(at: 2100, waited: 0, held: 1500, isWrite: true, chain: 1),
    ])
    let program = SimulationProgram(recording)
    let steps = program.steps.all(0).filter { $0.kind == .operation }
    #expect(steps.map(\.operation) == [OperationKind.fault.rawValue, OperationKind.unmap.rawValue])
    #expect(steps.map(\.hold) == [UInt32(SimulationSettings().fault), 1500])
    #expect(program.strayAcquisitions == 0)
  }

  /// The steps of one thread that take the lock: operation and hold.
  private func holds(_ events: [RecordedEvent]) throws -> [String] {
    let program = SimulationProgram(try record([beginning(0, at: 0)] + events))
    #expect(program.strayAcquisitions == 0)
    return program.steps.all(0).filter { $0.kind == .operation }.map {
      "\(OperationKind(rawValue: $0.operation)!.name) \($0.hold)"
    }
  }

  @Test func `A fault that waited long and asks again has both holds`() throws {
    let found = try holds([
      fault(low, at: 1000), acquisition(at: 1100, waited: 20_000, held: 300),
      acquisition(at: 22_000, waited: 0, held: 400),
    ])
    #expect(found == ["fault 700"])
  }

  @Test func `A call has the hold of its mode, whatever it asks for before`() throws {
    let found = try holds([
      call(.munmap, CallArguments(low, 8192), at: 1000, to: 9000),
      acquisition(at: 1100, waited: 0, held: 100),
      acquisition(at: 1300, waited: 0, held: 2000, isWrite: true),
      acquisition(at: 4000, waited: 0, held: 50),
    ])
    #expect(found == ["populate 100", "unmap 2000", "populate 50"])
  }

  @Test func `A fault inside a call takes one acquisition from it`() throws {
    let recording = try record([
      beginning(0, at: 0), beginning(1, at: 0),
      // The other one holds all the time.
      call(.munmap, CallArguments(high, 4096), thread: 1, at: 900, to: 9000),
      acquisition(thread: 1, at: 900, waited: 0, held: 8000, isWrite: true),
      call(.munmap, CallArguments(low, 4096), at: 1000, to: 12_000), fault(low + 65536, at: 1100),
      acquisition(at: 1200, waited: 7700, held: 100),
      acquisition(at: 9100, waited: 0, held: 200, isWrite: true),
    ])
    var users = LockUse.Cursors(recording)
    let used = recording.acquisitions.map { users.use(of: $0).operation }
    #expect(used == [.unmap, .fault, .unmap])
  }

  @Test func `simulate says which code waits`() throws {
    let folder = try TemporaryFolder()
    try waiting().write(to: folder.path + "/r")
    let result = try Tool.shell(
      """
      cd "$1" && "$TOOL" simulate r && "$TOOL" simulate --json --cores 2 --policy semaphore r > j &&
        "$TOOL" compare --rounds 1 --html p r > c
      """, [folder.path])
    #expect(result.status == 0, "\(result.errors)")
    #expect(
      result.output.contains(
        "call chains that wait longest on 64 processors: waits / ms\n  unmap: free\n"),
      "\(result.output)")
    let data = try #require(FileManager.default.contents(atPath: folder.path + "/j"))
    let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    let runs = (object["simulated"] as? [String: Any])?["runs"] as? [[String: Any]]
    let chains = try #require(runs?.first?["waitingChains"] as? [[String: Any]])
    #expect(chains.count == 1 && chains[0]["waits"] as? Int == 1)
    let functions = try #require(chains[0]["functions"] as? [[String: Any]])
    #expect(functions.map { $0["function"] as? String } == ["lock", "free"])
    let page = try String(contentsOfFile: folder.path + "/p", encoding: .utf8)
    #expect(page.contains("Call chains that wait longest on 64 processors"))
    #expect(page.contains("<td class=\"text\">unmap: free</td>"))
  }
}
