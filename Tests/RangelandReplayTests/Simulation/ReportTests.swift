// SPDX-License-Identifier: Apache-2.0
//
// The page that `compare --html` writes: well-formed, and complete in itself.

import Foundation
import FoundationXML
import Rangeland
import Testing

@testable import RangelandReplay

/// Collects what a page is made of.
private final class PageReader: NSObject, XMLParserDelegate {
  var elements: [String: Int] = [:]
  var attributes: Set<String> = []
  var identifiers: [String] = []
  var texts = ""

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
    qualifiedName: String?, attributes: [String: String] = [:]
  ) {
    elements[name, default: 0] += 1
    self.attributes.formUnion(attributes.keys)
    if let id = attributes["id"] { identifiers.append(id) }
  }

  func parser(_ parser: XMLParser, foundCharacters string: String) { texts += string }
}

private func report(name: String, note: String, random: inout SeededGenerator) throws
  -> RecordingReport
{
  let made = try RandomProgram.recording(using: &random)
  var info = made.info
  info.note = note
  info.eventClasses = [.calls, .userFaults, .acquisitions, .switches, .wakeUps]
  var recording = try Recording(
    info: info, files: made.files, initialLayout: made.initialLayout, name: "test")
  for thread in made.threads { try recording.append(.begin(thread.beginning)) }
  var events: [RecordedEvent] = made.calls.map { .call($0) } + made.faults.map { .fault($0) }
  for call in made.calls {
    events.append(
      acquisition(
        thread: call.thread, at: call.enter, waited: (call.exit - call.enter) / 2,
        held: (call.exit - call.enter) / 2, isWrite: true))
  }
  events.sort { $0.time < $1.time }
  for event in events { try recording.append(event) }
  let program = SimulationProgram(recording)
  let runs = try #require(Simulation.runAll(program, cores: [2, 8, 32, 64]))
  var report = RecordingReport(name: name, recording, program, runs: runs)
  report.costSubjects = ["kernel & <all>"]
  report.costs = [.init(operation: "map", count: 3, nanoseconds: [nil])]
  return report
}

@Suite struct ReportTests {
  @Test func `A page is well-formed and needs nothing else`() throws {
    var random = SeededGenerator("page")
    let reports = try [
      report(name: "<&\"'>.rangeland", note: "a <note> & \u{1}more", random: &random),
      report(name: "second.rangeland", note: "", random: &random),
    ]
    let page = HTMLReport.page(reports)
    let parser = XMLParser(data: Data(page.utf8))
    let reader = PageReader()
    parser.delegate = reader
    #expect(
      parser.parse(), "\(String(describing: parser.parserError)) in line \(parser.lineNumber)")
    #expect(reader.elements["section"] == 2)
    #expect(reader.elements["svg"] == 6)
    #expect(reader.identifiers == ["r0", "r1"])
    #expect(reader.texts.contains("<&\"'>.rangeland"))
    // The first note only: the other recording has none.
    #expect(reader.elements["details"] == 1)
    // Nothing is fetched, nothing runs.
    for word in ["http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "<iframe"]
    {
      #expect(!page.contains(word), "\(word)")
    }
    #expect(reader.attributes.isDisjoint(with: ["src", "onclick", "onload"]))
    for report in reports { #expect(page.contains(report.verdict.text.escaped)) }
    #expect(page.contains("prefers-color-scheme:dark"))
  }

  @Test func `Policies are told apart without colours`() throws {
    var random = SeededGenerator("curves")
    let report = try report(name: "x", note: "", random: &random)
    let picture = report.scalingPicture()
    for policy in LockPolicy.allCases {
      #expect(picture.contains("curve \(policy.rawValue)"))
      #expect(picture.contains(">.\(policy.rawValue)</text>"))
    }
    // Each has a mark of its own shape.
    var shapes: Set<String> = []
    for policy in LockPolicy.allCases {
      var svg = SVG(width: 10, height: 10, title: "")
      svg.mark(policy, 0, 0, title: "")
      shapes.insert(String(svg.body.prefix { $0 != "c" }))
    }
    #expect(shapes.count == LockPolicy.allCases.count)
  }

  @Test func `The map holds everything that happened`() throws {
    var random = SeededGenerator("map")
    let recording = try RandomProgram.recording(using: &random)
    let map = ActivityMap(recording, [])
    let faults = map.rows.reduce(0) { $0 + $1.faults.reduce(0) { $0 + Int($1) } }
    let changes = map.rows.reduce(0) { $0 + $1.changes.reduce(0) { $0 + Int($1) } }
    #expect(faults == recording.faults.count)
    #expect(changes >= recording.calls.count { $0.changesMappings })
    #expect(map.rows.map(\.address) == map.rows.map(\.address).sorted())
  }
}
