// Fetches a published model by name, version and sha256, without Python. In buildSrc/src/main/kotlin (buildSrc/build.gradle.kts:
// `plugins { `kotlin-dsl` }; repositories { gradlePluginPortal() }`) it is a task of the app's build:
//
//     val model = layout.buildDirectory.dir("model")
//     val fetchModel by tasks.registering {
//         inputs.property("model", "u2net-4mb@1.1.0")
//         outputs.dir(model)
//         doLast {
//             FetchModel("https://models.example.com", "u2net-4mb", "1.1.0", sha256 = "9f...").into(model.get().asFile.toPath())
//         }
//     }
//     android.sourceSets["main"].assets.srcDir(files(model).builtBy(fetchModel))
//
// The sha256 is that of the model's manifest.json: `compress publish` says it, NAME/index.json has it. Every file is
// checked before any of them has its final name; what is there already, and right, is not fetched again.
//
// As a command:
//
//     java -cp fetch-model.jar FetchModelKt u2net-4mb@1.1.0 --from URL --sha256 9f... --out DIR
//     --format onnx   which file (default: tflite)      --with golden,card   more of what lies beside it than the labels
//     --aipack DIR    a Play AI pack instead: DIR/build.gradle.kts and the files in DIR/src/main/assets/NAME

import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URI
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardCopyOption.REPLACE_EXISTING
import java.security.MessageDigest
import kotlin.system.exitProcess

private const val MANIFEST_BYTES = 16L * 1024 * 1024
private const val STALLED_MS = 60_000
private val SHA256 = Regex("[0-9a-f]{64}")

class FetchException(message: String) : Exception(message)

private fun refuse(message: String): Nothing = throw FetchException(message)

class FetchModel(
    registry: String,
    private val name: String,
    private val version: String,
    private val sha256: String,
    private val format: String = "tflite",
    more: List<String> = emptyList(),
) {
    private val base: String
    private val roles = listOf("labels") + more

    init {
        if (!Regex("[a-z0-9][a-z0-9._-]{0,99}").matches(name)) refuse("name one model, as in u2net-4mb@1.1.0")
        if (!Regex("""\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?""").matches(version))
            refuse("$name: give a version, as in $name@1.1.0")
        if (!Regex("https?://.+").matches(registry)) refuse("--from: an http or https URL of a registry is expected")
        if (!SHA256.matches(sha256)) refuse("--sha256: the 64 digits of the manifest's sha256 are expected")
        base = "${registry.trimEnd('/')}/$name/$version"
    }

    /** A file of the manifest: its name in its own folder, its size and sha256. */
    private class Entry(val file: String, val size: Long, val sha256: String)

    /** Brings the files into `folder`; returns how many had to be fetched, and how many there are. */
    fun into(folder: Path): Pair<Int, Int> {
        val manifest = manifestBytes()
        val entries = wanted(manifest)
        Files.createDirectories(folder)
        val missing = entries.filterNot { isThere(folder.resolve(it.file), it) }
        val partial = { entry: Entry -> folder.resolve(".${entry.file}.partial") }
        try {
            missing.forEach { download(it, partial(it)) }
            missing.forEach { Files.move(partial(it), folder.resolve(it.file), REPLACE_EXISTING, ATOMIC_MOVE) }
        } finally {
            missing.forEach { Files.deleteIfExists(partial(it)) }
        }
        val whole = Files.write(folder.resolve(".manifest.partial"), manifest)
        Files.move(whole, folder.resolve("manifest.json"), REPLACE_EXISTING, ATOMIC_MOVE)
        return missing.size to entries.size
    }

    /** The same as a Play AI pack, whose name is the folder's. */
    fun intoAiPack(folder: Path): Pair<Int, Int> {
        val pack = folder.toAbsolutePath().normalize().fileName.toString()
        if (!Regex("[A-Za-z][A-Za-z0-9_]*").matches(pack))
            refuse("--aipack: $pack: a pack's name has letters, digits and _, a letter first")
        val found = into(folder.resolve("src/main/assets").resolve(name))
        val build = folder.resolve("build.gradle.kts")
        val delivery = "dynamicDelivery { deliveryType = \"fast-follow\" }"
        val text = "plugins { id(\"com.android.ai-pack\") }\n\naiPack {\n    packName = \"$pack\"\n    $delivery\n}\n"
        if (!Files.exists(build)) Files.write(build, text.toByteArray())
        return found
    }

    private fun manifestBytes(): ByteArray {
        val bytes = open("manifest.json") { it.readNBytes(MANIFEST_BYTES.toInt() + 1) }
        if (bytes.size > MANIFEST_BYTES) refuse("$base/manifest.json: has more than $MANIFEST_BYTES bytes, which is no manifest")
        if (hex(MessageDigest.getInstance("SHA-256").digest(bytes)) != sha256)
            refuse("$base/manifest.json: is not the manifest with this sha256")
        return bytes
    }

    private fun wanted(bytes: ByteArray): List<Entry> {
        val manifest = Json(String(bytes)).read() as? Map<*, *> ?: refuse("$base/manifest.json: is no manifest")
        val schema = manifest["schema"]
        if (schema != 1.0 && schema != 2.0) refuse("schema $schema: 1 and 2 are known; take a newer FetchModel.kt")
        if (manifest["name"] != name || manifest["version"] != version)
            refuse("the manifest is of ${manifest["name"]}@${manifest["version"]}")
        val files = tables(manifest["files"])
        val model = files.firstOrNull { it["format"] == format }
            ?: refuse("$name@$version has no $format file, but ${files.joinToString { it["format"].toString() }}")
        val beside = tables(manifest["beside"]).filter { it["role"] in roles }
        roles.firstOrNull { role -> role != "labels" && beside.none { it["role"] == role } }
            ?.let { refuse("$name@$version has no $it beside its files") }
        return (listOf(model) + beside).map(::entry)
    }

    private fun entry(table: Map<*, *>): Entry {
        val file = table["file"] as? String ?: ""
        if (file in listOf("", ".", "..", "manifest.json") || file.any { it in "/\\:\u0000" }) refuse("\"$file\" is no file in its own folder")
        val digest = table["sha256"] as? String ?: ""
        val size = table["size_bytes"] as? Double ?: -1.0
        if (!SHA256.matches(digest) || size < 0 || size != Math.floor(size)) refuse("$file: no sha256 or size")
        return Entry(file, size.toLong(), digest)
    }

    private fun isThere(path: Path, entry: Entry): Boolean {
        if (!Files.isRegularFile(path) || Files.size(path) != entry.size) return false
        return Files.newInputStream(path).use { copied(it, null, entry.size).first } == entry.sha256
    }

    /** Writes to `partial` what the entry describes, and nothing that is longer or otherwise. */
    private fun download(entry: Entry, partial: Path) {
        val (digest, size) = open(entry.file) { copied(it, partial, entry.size) }
        if (size > entry.size) refuse("$base/${entry.file}: is longer than the ${entry.size} bytes of the manifest")
        if (size != entry.size || digest != entry.sha256) refuse("$base/${entry.file}: is not the file of the manifest")
    }

    /** The sha256 and the size of at most one byte more than `most`. */
    private fun copied(from: InputStream, to: Path?, most: Long): Pair<String, Long> {
        val digest = MessageDigest.getInstance("SHA-256")
        val buffer = ByteArray(1 shl 16)
        var size = 0L
        (if (to == null) java.io.OutputStream.nullOutputStream() else Files.newOutputStream(to)).use { out ->
            while (size <= most) {
                val count = from.read(buffer, 0, minOf(buffer.size.toLong(), most + 1 - size).toInt())
                if (count < 0) break
                size += count
                digest.update(buffer, 0, count)
                out.write(buffer, 0, count)
            }
        }
        return hex(digest.digest()) to size
    }

    private fun <T> open(file: String, read: (InputStream) -> T): T {
        val url = "$base/${file.replace(" ", "%20")}"
        try {
            val connection = URI(url).toURL().openConnection() as HttpURLConnection
            connection.connectTimeout = STALLED_MS
            connection.readTimeout = STALLED_MS
            if (connection.responseCode != 200) refuse("$url: ${connection.responseCode}; is the version published there?")
            return connection.inputStream.use(read)
        } catch (error: IOException) {
            refuse("$url: ${error.message ?: error.javaClass.simpleName}")
        } catch (error: java.net.URISyntaxException) {
            refuse("$url: is no URL")
        }
    }

    private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }

    private fun tables(value: Any?) = (value as? List<*> ?: emptyList<Any>()).filterIsInstance<Map<*, *>>()
}

/** JSON as maps, lists, text, doubles, booleans and null. */
private class Json(private val text: String) {
    private var at = 0

    fun read(): Any? = value(0).also { if (next() != null) fail() }

    private fun value(depth: Int): Any? {
        if (depth > 100) fail()
        return when (val sign = next()) {
            '{' -> mutableMapOf<String, Any?>().also { table ->
                items('}') {
                    val key = if (next() == '"') string() else fail()
                    if (next() != ':') fail()
                    at++
                    table[key] = value(depth + 1)
                }
            }
            '[' -> mutableListOf<Any?>().also { list -> items(']') { list += value(depth + 1) } }
            '"' -> string()
            else -> if (sign == null) fail() else plain()
        }
    }

    private fun next(): Char? {
        while (at < text.length && text[at] in " \t\r\n") at++
        return text.getOrNull(at)
    }

    private fun items(end: Char, read: () -> Unit) {
        at++
        if (next() == end) at++ else while (true) {
            read()
            when (next()) {
                ',' -> at++
                end -> { at++; return }
                else -> fail()
            }
        }
    }

    private fun string(): String {
        val found = StringBuilder()
        at++
        while (true) {
            when (val sign = text.getOrNull(at++) ?: fail()) {
                '"' -> return found.toString()
                '\\' -> found.append(escaped())
                else -> found.append(sign)
            }
        }
    }

    private fun escaped(): Char = when (val sign = text.getOrNull(at++)) {
        'n' -> '\n'
        't' -> '\t'
        'r' -> '\r'
        'b' -> '\b'
        'f' -> '\u000c'
        'u' -> (text.drop(at).take(4).toIntOrNull(16) ?: fail()).toChar().also { at += 4 }
        '"', '\\', '/' -> sign
        else -> fail()
    }

    private fun plain(): Any? {
        val word = text.substring(at).takeWhile { it !in ",]} \t\r\n" }
        at += word.length
        return when (word) {
            "true" -> true
            "false" -> false
            "null" -> null
            else -> word.toDoubleOrNull() ?: fail()
        }
    }

    private fun fail(): Nothing = refuse("manifest.json: is no JSON at character $at")
}

private val OPTIONS = listOf("--from", "--sha256", "--format", "--with", "--out", "--aipack")

private fun run(args: Array<String>): String {
    val named = args.getOrNull(0).orEmpty().split("@")
    val options = args.drop(1).chunked(2)
    options.firstOrNull { it.size != 2 || it[0] !in OPTIONS }
        ?.let { refuse("${it[0]}: ${OPTIONS.joinToString()} are known, each with a value") }
    val values = options.associate { it[0] to it[1] }
    if (("--out" in values) == ("--aipack" in values)) refuse("give --out DIR or --aipack DIR")
    val more = values["--with"].orEmpty().split(",").filter(String::isNotEmpty)
    val model = FetchModel(
        values["--from"].orEmpty(), named[0], named.getOrElse(1) { "" }, values["--sha256"].orEmpty(), values["--format"] ?: "tflite", more,
    )
    val folder = Path.of(values["--aipack"] ?: values.getValue("--out"))
    val (fetched, all) = if ("--aipack" in values) model.intoAiPack(folder) else model.into(folder)
    return "${args[0]}: $fetched of $all files fetched into $folder"
}

fun main(args: Array<String>) {
    try {
        println(run(args))
    } catch (error: FetchException) {
        System.err.println("fetch-model: ${error.message}")
        exitProcess(2)
    } catch (error: IOException) {
        System.err.println("fetch-model: ${error.message}: ${error.javaClass.simpleName}")
        exitProcess(2)
    }
}
