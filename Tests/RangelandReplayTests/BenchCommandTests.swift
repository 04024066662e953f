// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// `rangeland bench` as a user runs it; no figure is looked at.
@Suite struct BenchCommandTests {
  private struct Report: Decodable {
    var schemaVersion: Int
    var machine: [String: Value]
    var cells: [Cell]
    var targets: [Target]

    struct Cell: Decodable {
      var name: String
      var subject: String
      var threads: Int
      var medianNanoseconds: Double
      var minNanoseconds: Double
      var maxNanoseconds: Double
      var runs: Int
    }

    struct Target: Decodable {
      var name: String
      var required: Double
      var measured: Double
      var met: Bool
    }

    enum Value: Decodable {
      case text(String)
      case number(Double)
      init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
          self = .text(text)
        } else {
          self = .number(try container.decode(Double.self))
        }
      }
    }
  }

  @Test func `bench space prints every cell and target, and exits 0 whatever it measures`() throws {
    let run = try Tool.shell(
      "$TOOL bench space --json --rounds 2 --milliseconds 1 --only mmap1 protect spin")
    #expect(run.status == 0, "\(run.errors)")
    let report = try JSONDecoder().decode(Report.self, from: Data(run.output.utf8))
    #expect(report.schemaVersion == 1)
    #expect(!report.machine.isEmpty)
    for loop in ["mmap1", "protect"] {
      for subject in ["kernel", "semaphore", "wholeRange", "ranged", "perVMA"] {
        for threads in 1...2 {
          let cell = report.cells.first {
            $0.name == loop && $0.subject == subject && $0.threads == threads
          }
          let found = try #require(cell, "\(loop) \(subject) x\(threads)")
          #expect(found.runs == 2 && found.minNanoseconds > 0)
          #expect(found.minNanoseconds <= found.medianNanoseconds)
          #expect(found.medianNanoseconds <= found.maxNanoseconds)
        }
      }
    }
    #expect(report.targets.count == 4)
    for target in report.targets {
      #expect(target.met == (target.measured >= target.required), "\(target.name)")
    }
  }

  @Test func `bench refuses what it does not know`() throws {
    #expect(try Tool.shell("$TOOL bench space --only nothing").status == 64)
    #expect(try Tool.shell("$TOOL bench space --subjects nothing").status == 64)
    #expect(try Tool.shell("$TOOL bench space --rounds 0").status == 64)
  }
}
