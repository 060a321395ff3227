#!/usr/bin/env swift
// Fetches a published model by name, version and sha256, without Python. In Xcode it is a "Run Script" phase of the app's
// target, before "Copy Bundle Resources":
//
//     swift fetch-model.swift u2net-4mb@1.1.0 --from https://models.example.com --sha256 9f... --out "$SRCROOT/Model"
//
// The sha256 is that of the model's manifest.json: `compress publish` says it, NAME/index.json has it. Every file is
// checked before any of them has its final name; what is there already, and right, is not fetched again.
//
//     --format onnx   which file (default: tflite)      --with golden,card   more of what lies beside it than the labels

import CryptoKit
import Foundation

struct FetchError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

struct Manifest: Decodable {
    struct File: Decodable {
        let format: String?
        let role: String?
        let file: String
        let sha256: String
        let size_bytes: Int
    }
    let schema: Int
    let name: String
    let version: String
    let files: [File]
    let beside: [File]?
}

struct Options {
    var name = ""
    var version = ""
    var values = ["--format": "tflite", "--with": ""]

    var roles: [String] { ["labels"] + values["--with"]!.split(separator: ",").map(String.init) }

    init(_ arguments: [String]) throws {
        let named = (arguments.first ?? "").split(separator: "@", omittingEmptySubsequences: false).map(String.init)
        guard named.count == 2, matches(named[0], "[a-z0-9][a-z0-9._-]{0,99}") else {
            throw FetchError("name one model and its version, as in u2net-4mb@1.1.0")
        }
        (name, version) = (named[0], named[1])
        guard matches(version, #"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"#) else {
            throw FetchError("\(name): give a version, as in \(name)@1.1.0")
        }
        let rest = Array(arguments.dropFirst())
        for place in stride(from: 0, to: rest.count, by: 2) {
            guard ["--from", "--sha256", "--format", "--with", "--out"].contains(rest[place]), place + 1 < rest.count else {
                throw FetchError("\(rest[place]): --from, --sha256, --format, --with and --out are known, each with a value")
            }
            values[rest[place]] = rest[place + 1]
        }
        guard matches(values["--from"] ?? "", "https?://.+") else {
            throw FetchError("--from: an http or https URL of a registry is expected")
        }
        guard matches(values["--sha256"] ?? "", "[0-9a-f]{64}") else {
            throw FetchError("--sha256: the 64 digits of the manifest's sha256 are expected")
        }
        guard values["--out"] != nil else { throw FetchError("give --out DIR") }
    }
}

func matches(_ text: String, _ pattern: String) -> Bool {
    text.range(of: "^(?:\(pattern))$", options: .regularExpression) != nil
}

func sha256(of file: URL) throws -> String {
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    var digest = SHA256()
    while let chunk = try handle.read(upToCount: 1 << 16), !chunk.isEmpty { digest.update(data: chunk) }
    return digest.finalize().map { String(format: "%02x", $0) }.joined()
}

/// Writes what the URL gives to `partial`. `most`: bytes that it may have; a longer file is stopped there.
final class Download: NSObject, URLSessionDataDelegate {
    private let url: URL
    private let most: Int
    private let partial: FileHandle
    private let done = DispatchSemaphore(value: 0)
    private var size = 0
    private var failure: FetchError?

    init(_ url: URL, to partial: URL, most: Int) throws {
        FileManager.default.createFile(atPath: partial.path, contents: nil)
        (self.url, self.most, self.partial) = (url, most, try FileHandle(forWritingTo: partial))
    }

    func run() throws {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = 60
        let session = URLSession(configuration: configuration, delegate: self, delegateQueue: nil)
        session.dataTask(with: url).resume()
        done.wait()
        session.invalidateAndCancel()
        try partial.close()
        if let failure { throw failure }
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
    ) {
        let status = (response as? HTTPURLResponse)?.statusCode ?? 0
        if status != 200 { failure = FetchError("\(url): \(status); is the version published there?") }
        completionHandler(status == 200 ? .allow : .cancel)
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        size += data.count
        if size > most {
            failure = FetchError("\(url): is longer than \(most) bytes")
            dataTask.cancel()
        } else {
            partial.write(data)
        }
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: Error?) {
        if failure == nil, let error { failure = FetchError("\(url): \(error.localizedDescription)") }
        done.signal()
    }
}

func wanted(_ manifest: Manifest, _ options: Options) throws -> [Manifest.File] {
    guard [1, 2].contains(manifest.schema) else {
        throw FetchError("schema \(manifest.schema): 1 and 2 are known; take a newer fetch-model.swift")
    }
    guard manifest.name == options.name, manifest.version == options.version else {
        throw FetchError("the manifest is of \(manifest.name)@\(manifest.version)")
    }
    guard let model = manifest.files.first(where: { $0.format == options.values["--format"] }) else {
        let formats = manifest.files.compactMap(\.format).joined(separator: ", ")
        throw FetchError("\(options.name)@\(options.version) has no \(options.values["--format"]!) file, but \(formats)")
    }
    let beside = (manifest.beside ?? []).filter { options.roles.contains($0.role ?? "") }
    for role in options.roles where role != "labels" && !beside.contains(where: { $0.role == role }) {
        throw FetchError("\(options.name)@\(options.version) has no \(role) beside its files")
    }
    for entry in [model] + beside {
        guard !["", ".", "..", "manifest.json"].contains(entry.file), !entry.file.contains(where: { "/\\:\0".contains($0) })
        else { throw FetchError("\"\(entry.file)\" is no file in its own folder") }
        guard matches(entry.sha256, "[0-9a-f]{64}"), entry.size_bytes >= 0 else {
            throw FetchError("\(entry.file): no sha256 or size")
        }
    }
    return [model] + beside
}

func isThere(_ file: URL, _ entry: Manifest.File) throws -> Bool {
    let size = (try? FileManager.default.attributesOfItem(atPath: file.path)[.size]) as? Int
    return try size == entry.size_bytes && sha256(of: file) == entry.sha256
}

/// Gives a file its final name, where another may lie.
func move(_ partial: URL, to file: URL) throws {
    guard rename(partial.path, file.path) == 0 else { throw FetchError("\(file.path): cannot be written") }
}

func fetch(_ options: Options) throws -> String {
    let folder = URL(fileURLWithPath: options.values["--out"]!, isDirectory: true)
    guard let registry = URL(string: options.values["--from"]!) else { throw FetchError("--from: is no URL") }
    let base = registry.appendingPathComponent(options.name).appendingPathComponent(options.version)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var partials: [URL] = []
    defer { partials.forEach { try? FileManager.default.removeItem(at: $0) } }
    func partial(_ name: String) -> URL {
        let file = folder.appendingPathComponent(".\(name).partial")
        partials.append(file)
        return file
    }

    let stated = partial("manifest.json")
    try Download(base.appendingPathComponent("manifest.json"), to: stated, most: 16 << 20).run()
    guard try sha256(of: stated) == options.values["--sha256"] else {
        throw FetchError("\(base)/manifest.json: is not the manifest with this sha256")
    }
    let entries = try wanted(try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: stated)), options)
    let missing = try entries.filter { try !isThere(folder.appendingPathComponent($0.file), $0) }
    var fetched: [(URL, URL)] = []
    for entry in missing {
        let file = partial(entry.file)
        try Download(base.appendingPathComponent(entry.file), to: file, most: entry.size_bytes).run()
        guard try isThere(file, entry) else { throw FetchError("\(entry.file): is not the file of the manifest") }
        fetched.append((file, folder.appendingPathComponent(entry.file)))
    }
    for (file, final) in fetched { try move(file, to: final) }
    try move(stated, to: folder.appendingPathComponent("manifest.json"))
    return "\(options.name)@\(options.version): \(missing.count) of \(entries.count) files fetched into \(folder.path)"
}

do {
    print(try fetch(try Options(Array(CommandLine.arguments.dropFirst()))))
} catch {
    let message = (error as? FetchError)?.message ?? error.localizedDescription
    FileHandle.standardError.write(Data("fetch-model: \(message)\n".utf8))
    exit(2)
}
