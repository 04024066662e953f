// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// `verify` as a user runs it.
@Suite struct VerifyCommandTests {
  /// `nil` = this kernel cannot be the judge.
  private func report(_ arguments: String) throws -> [String: Any]? {
    let run = try Tool.shell("$TOOL verify \(arguments) --json")
    if run.errors.contains("PROCMAP_QUERY") { return nil }
    #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    return try #require(
      JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any])
  }

  @Test(arguments: [1, 8]) func `json has the promised shape`(_ threads: Int) throws {
    guard let report = try report("--operations 3000 --seed 3 --threads \(threads)") else { return }
    #expect(report["schemaVersion"] as? Int == 1)
    #expect((report["kernel"] as? String)?.isEmpty == false)
    #expect(report["seed"] as? Int == 3)
    #expect(report["operations"] as? Int == 3000)
    #expect(report["threads"] as? Int == threads)
    #expect((report["differences"] as? [Any])?.isEmpty == true)
    let departures = try #require(report["departures"] as? [[String: Any]])
    #expect(departures.first?["name"] as? String == "page-zero")
    let coverage = try #require(report["coverage"] as? [[String: Any]])
    let hits = coverage.compactMap { $0["hits"] as? Int }
    #expect(hits.count == coverage.count && hits.reduce(0, +) == 3000)
  }

  @Test func `json of histories has the promised shape`() throws {
    let report = try #require(try report("--histories 100 --seed 4 --policy perVMA"))
    #expect(report["schemaVersion"] as? Int == 1)
    #expect(report["seed"] as? Int == 4)
    #expect(report["policy"] as? String == "perVMA")
    #expect(report["histories"] as? Int == 100)
    #expect(report["operations"] as? Int == 100 * 8 * 6)
    #expect((report["differences"] as? [Any])?.isEmpty == true)
    #expect((report["coverage"] as? [Any])?.isEmpty == false)
  }

  @Test(arguments: [
    "--only mmap,mprotekt", "--only mmap,mmap", "--threads 0", "--threads 65",
    "--histories 0", "--histories 10 --threads 9", "--histories 10 --only mmap",
    "--script x --threads 2", "--script x --only mmap",
  ])
  func `a wrong option is told`(_ arguments: String) throws {
    let run = try Tool.shell("$TOOL verify \(arguments)")
    #expect(run.status == 64)
    #expect(run.output.isEmpty && !run.errors.isEmpty)
    if arguments.contains("mprotekt") {
      #expect(run.errors.contains("'mprotekt' is no kind of call; the kinds are"))
    }
  }
}
