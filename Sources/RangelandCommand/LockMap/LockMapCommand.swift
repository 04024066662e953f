// SPDX-License-Identifier: Apache-2.0
//
// `rangeland lockmap`: what the lock of an address space protects.

import ArgumentParser
import Foundation
import Rangeland

struct LockMapCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lockmap",
    abstract: "Print, for every guarded item, the lock, the mode, the range and the reason.")

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "Print the text of docs/lock-map.md.")
  var markdown = false

  @Option(
    help: ArgumentHelp(
      "Compare with what checked test processes observed: the folder that RANGELAND_LOCKMAP_DIR named.",
      valueName: "folder"))
  var check: String?

  func run() throws {
    if let check { return try compare(check) }
    if json {
      try Terminal.print(encoded(LockMapReport()))
    } else {
      try Terminal.print(markdown ? LockMapReport.markdown() : LockMapReport.text())
    }
  }

  /// The union over the folder's files against the declared set; exit status 2 when they differ.
  private func compare(_ folder: String) throws {
    guard let all = try? FileManager.default.contentsOfDirectory(atPath: folder) else {
      throw OutputFailure(reason: "\(folder): the folder cannot be read")
    }
    let names = all.filter { $0.hasSuffix(".observed") }
    guard !names.isEmpty else {
      throw OutputFailure(
        reason:
          "\(folder) holds no *.observed file: run the tests in a debug build with "
          + "RANGELAND_LOCKMAP_DIR=\(folder)")
    }
    var observed: Set<String> = []
    for name in names {
      let text = try String(contentsOfFile: folder + "/" + name, encoding: .utf8)
      observed.formUnion(text.split(separator: "\n").map(String.init))
    }
    let declared = Set(LockMap.declared.map(\.line))
    let undeclared = observed.subtracting(declared).sorted()
    let unexercised = declared.subtracting(observed).sorted()
    var text = ""
    for line in undeclared { text += "observed, not declared: \(line)\n" }
    for line in unexercised { text += "declared, never observed: \(line)\n" }
    text +=
      "lock map: \(declared.count) declared, \(observed.count) observed in \(names.count) "
      + "test processes\n"
    try Terminal.print(text)
    if !undeclared.isEmpty || !unexercised.isEmpty { throw Difference() }
  }
}
